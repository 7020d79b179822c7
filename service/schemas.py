"""Requests and responses as pydantic models, for validation and for the OpenAPI description with working examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, create_model, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticKnownError

from scorer import columns
from scorer.columns import Column
from scorer.contrasts import CONTRASTS
from scorer.weighting.parameters import Parameter
from scorer.weights import DEFAULT_METHOD, METHODS

ReturnedPart = Literal["tokens", "spans", "raw", "weights"]
PARTS: Final[tuple[ReturnedPart, ...]] = ("tokens", "spans", "raw", "weights")

FLOAT32_MAX: Final = 3.4e38


def contrast_names() -> tuple[str, ...]:
    """Return the contrasts that a request can name: those that need only the image, and no other row.

    The samples of a batch are independent requests: none may decide what another one is compared with.
    """
    return tuple(name for name, contrast in CONTRASTS.items() if not (contrast.needs_column or contrast.needs_rows))


def _one_of(names: Sequence[str], name: str) -> str:
    """Return the name, or raise the error that pydantic raises for a Literal."""
    if name not in names:
        *others, last = map(repr, names)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})
    return name


def _known_contrast(name: str) -> str:
    return _one_of(contrast_names(), name)


def _list_contrasts(schema: dict[str, Any]) -> None:
    schema["enum"] = list(contrast_names())


def _known_method(name: str) -> str:
    return _one_of(tuple(METHODS), name)


def _list_methods(schema: dict[str, Any]) -> None:
    schema["enum"] = list(METHODS)


ContrastName = Annotated[str, AfterValidator(_known_contrast), Field(json_schema_extra=_list_contrasts)]
"""One of :func:`contrast_names`; the description lists them."""
MethodName = Annotated[str, AfterValidator(_known_method), Field(json_schema_extra=_list_methods)]
"""One of :data:`scorer.weights.METHODS`; the description lists them."""
MethodParams = Annotated[dict[str, float | Annotated[str, Field(max_length=32)] | None], Field(max_length=8)]
"""Parameters of a method; the method checks names and values."""

EXAMPLE_PNG: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAa0lEQVR42u3aQQ3AIAxAUSCIQcl0oIQDSiprcqZhB0II79+b9CU9Nrcn0smVdH"
    "gAAAAAAAAAAAAA+6p/B+IdSxfqbTohAAAAAAAAAAAAAAAAAAAAAAAAAAAAgLVl/0IAAAAAAAAAAAAA1wI+tMEFnYjRovQAAAAASUVORK5CYII="
)
"""A small image, so the examples in the description work as they are."""


class Strict(BaseModel):
    """Refuse unknown fields: a misspelt option must not be silently ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _given(name: str, kind: str, *absent: str) -> dict[str, Any]:
    """Return the schema of an object that gives a field, and none of others."""
    others = {other: {"type": "null"} for other in absent}
    return {"required": [name], "properties": {name: {"type": kind}, **others}}


class ImageIn(Strict):
    """An image: exactly one of these."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [_given(name, "string") for name in ("base64", "data_url", "url")]}
    )

    base64: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        None, description="an image file (JPEG, PNG, WebP, GIF, …) in base64 without line breaks"
    )
    data_url: Annotated[str, StringConstraints(min_length=1)] | None = Field(None, description="data:image/…;base64,…")
    url: Annotated[str, StringConstraints(min_length=1, max_length=8192)] | None = Field(
        None, description="an http(s) URL, refused unless the operator allows its host"
    )

    @model_validator(mode="after")
    def _one(self) -> ImageIn:
        if sum(value is not None for value in (self.base64, self.data_url, self.url)) != 1:
            raise ValueError("give exactly one of base64, data_url and url")
        return self


class TextPart(Strict):
    """Text of a message."""

    type: Literal["text"]
    text: str


class ImagePart(Strict):
    """The position of the image in a message."""

    type: Literal["image"]


class Message(Strict):
    """One message of a conversation. Every assistant message is scored."""

    role: Literal["system", "user", "assistant"]
    content: str | Annotated[list[TextPart | ImagePart], Field(max_length=64)]


_ONE_TEXT: Final[dict[str, Any]] = {
    "oneOf": [_given("text", "string", "messages"), _given("messages", "array", "text", "prompt")],
}
"""What :meth:`ScoringOptions._one_text` checks, as a schema."""


class ScoringOptions(Strict):
    """What to score, and how."""

    model_config = ConfigDict(json_schema_extra=_ONE_TEXT)

    text: str | None = Field(None, description="the caption; or give messages")
    messages: Annotated[list[Message], Field(min_length=1, max_length=256)] | None = Field(
        None, description="a conversation, whose assistant messages are scored; or give text"
    )
    prompt: str | None = Field(None, description="the instruction that the caption answers; only with text")
    method: MethodName = Field(DEFAULT_METHOD, description="how weights are derived from raw scores")
    method_params: MethodParams = Field(
        default_factory=dict, description="parameters of the method: names and ranges are in /v1/models"
    )
    contrast: ContrastName | None = Field(
        None, description="what replaces the image; weights are derived from it; default: chosen by the server"
    )
    further_contrasts: Annotated[list[ContrastName], Field(max_length=16)] = Field(
        default_factory=list,
        description="more contrasts, which share the pass with the image: each adds its raw scores to every token",
    )
    parts: Annotated[list[ReturnedPart], Field(max_length=8)] = Field(
        list(PARTS), alias="return", description="the parts of each token to return"
    )

    @model_validator(mode="after")
    def _one_text(self) -> ScoringOptions:
        if (self.text is None) == (self.messages is None):
            raise ValueError("give exactly one of text and messages")
        if self.prompt is not None and self.messages is not None:
            raise ValueError("prompt is allowed only with text; with messages, put it in a user message")
        return self


class ScoreRequest(ScoringOptions):
    """One image and its text.

    Text without an image is refused: every number of the response compares with an image. In a dataset job, such a row
    is kept as ``text_only``.
    """

    model_config = ConfigDict(
        json_schema_extra={
            **_ONE_TEXT,
            "examples": [{"image": {"base64": EXAMPLE_PNG}, "text": "A red square on a blue background."}],
        }
    )

    image: ImageIn


class BatchRequest(Strict):
    """Several samples, each of which gets a result or an error."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {"image": {"base64": EXAMPLE_PNG}, "text": "A red square."},
                        {"image": {"base64": EXAMPLE_PNG}, "text": "A green circle.", "method": "vig-row"},
                    ]
                }
            ]
        }
    )

    items: Annotated[list[ScoreRequest | Any], Field(min_length=1)] = Field(
        description="each must be a ScoreRequest; one that is not gets an error of its own, and the others are scored"
    )


Score = Annotated[float, Field(ge=-FLOAT32_MAX, le=FLOAT32_MAX)] | None
Scores = Annotated[list[Score], Field(max_length=65_536)]
Flags = Annotated[list[bool | int], Field(max_length=65_536)]


class RawScoresIn(Strict):
    """Raw scores of one sample; :func:`weights_request` adds the lists."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "method": "cal",
                    "method_params": {"window": 1},
                    "logit_gap": [0.2, 6.1, 2.0],
                    "logprob_clean": [-0.1, -0.2, -1.0],
                    "logprob_contrast": [-0.2, -5.0, -2.5],
                }
            ]
        }
    )

    method: MethodName = DEFAULT_METHOD
    method_params: MethodParams = Field(default_factory=dict)
    turns: Annotated[list[Annotated[int, Field(ge=0, le=32_767)]], Field(max_length=65_536)] | None = Field(
        None, description="the turn of each token, ascending; default: one turn"
    )

    def raw(self) -> Iterator[tuple[Column, list[float | None]]]:
        """Yield each raw-score column that was given, with its list."""
        for column in columns.raw(_known()):
            values = getattr(self, column.name, None)
            if values is not None:
                yield column, values

    def further_spans(self) -> Iterator[tuple[Column, list[bool | int]]]:
        """Yield each optional column of spans that was given, with its list."""
        for column in columns.optional(_known()):
            values = getattr(self, column.name, None) if column.kind == "span" else None
            if values is not None:
                yield column, values

    @model_validator(mode="after")
    def _check(self) -> RawScoresIn:
        lengths = {len(values) for _, values in self.raw()}
        if self.turns is not None:
            lengths.add(len(self.turns))
            if any(a > b for a, b in zip(self.turns, self.turns[1:], strict=False)):
                raise ValueError("turns must be in ascending order")
        lengths |= {len(values) for _, values in self.further_spans()}
        if len(lengths) != 1:
            raise ValueError(f"all lists must have one entry per token; their lengths are {sorted(lengths)}")
        return self


def _known() -> list[str]:
    """Return the names of all columns, but for those of further contrasts and those that only a run is asked for."""
    return [column.name for column in columns.COLUMNS if not column.asked]


def _further() -> list[str]:
    """Return the names of the columns of further contrasts that a request can name."""
    return [column.name for contrast in contrast_names() for column in columns.of_contrast(contrast)]


def weights_request() -> type[RawScoresIn]:
    """Create the request model with one list per raw score; lists of optional columns may be omitted."""
    fields: dict[str, Any] = {
        column.name: (Scores, Field(description=column.meaning))
        if column.required
        else (Scores | None, Field(None, description=column.meaning))
        for column in columns.raw(_known())
    }
    fields |= {
        column.name: (Flags | None, Field(None, description=column.meaning))
        for column in columns.optional(_known())
        if column.kind == "span"
    }
    doc = (
        "Raw scores of one sample, one entry per token; null where undefined. All lists must have the same length, "
        "which this schema cannot express."
    )
    return create_model("WeightsRequest", __base__=RawScoresIn, __doc__=doc, **fields)


WeightsRequest: Final = weights_request()


class Answer(BaseModel):
    """A part of a response; it has no other fields than those described."""

    model_config = ConfigDict(extra="forbid")


class TokenPlace(Answer):
    """A token and its position; :func:`token_out` adds scores and weight."""

    id: int | None = Field(None, description="tokens: its id in the vocabulary of the model")
    text: str | None = Field(None, description="tokens: its text; U+FFFD if the token is part of a character")
    turn: int | None = Field(None, description="spans: its turn, an index into turns")
    start: int | None = Field(None, description="spans: its first UTF-8 byte within the turn")
    end: int | None = Field(None, description="spans: the byte after its last")


def token_out() -> type[TokenPlace]:
    """Create the response model of one token, with every raw score and the weight."""
    further = [column for column in columns.optional(_known()) if column.kind == "span"]
    fields: dict[str, Any] = {
        column.name: (bool | int | None, Field(None, description=f"spans: {column.meaning}")) for column in further
    }
    fields |= {
        column.name: (float | None, Field(None, description=f"raw: {column.meaning}"))
        for column in columns.raw([*_known(), *_further()])
    }
    fields["weight"] = (float | None, Field(None, description="weights: its weight by the method"))
    doc = "One scored token; ``return`` selects its fields."
    return create_model("TokenOut", __base__=TokenPlace, __doc__=doc, **fields)


if TYPE_CHECKING:  # a type checker does not accept a class created at run time
    TokenOut = TokenPlace
else:
    TokenOut = token_out()


class Totals(Answer):
    """Totals over all tokens; null where undefined."""

    tokens: int
    mean_gap: float | None
    logprob_clean: float | None = Field(description="sum, nats")
    logprob_contrast: float | None = Field(description="sum, nats")
    mean_weight: float | None


class Timing(Answer):
    """Times in milliseconds."""

    queue_ms: float = Field(description="from encoding to the start of the batch")
    engine_ms: float = Field(description="scoring the whole batch")
    total_ms: float = Field(description="since the request arrived")


class ScoreResponse(Answer):
    """Scores of one sample."""

    request_id: str
    model: str
    fingerprint: str = Field(
        description="identifies everything that determines raw scores; scores with equal fingerprints are comparable"
    )
    contrast: ContrastName
    further_contrasts: list[ContrastName]
    method: MethodName
    method_params: dict[str, float | str | None] = Field(description="all parameters, including defaults")
    turns: list[str] = Field(description="the text of each scored turn")
    tokens: list[TokenOut]
    totals: Totals
    timing: Timing


class FieldError(Answer):
    """What is wrong with one field."""

    loc: list[str | int] = Field(description="the path to the field")
    msg: str
    type: str


def _never_null(schema: dict[str, Any]) -> None:
    del schema["default"]


class Problem(Answer):
    """A problem by RFC 9457."""

    type: str = Field(pattern="^urn:tokensight:problem:")
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    code: str = Field(description="a stable code for programs")
    request_id: str
    errors: list[FieldError] | SkipJsonSchema[None] = Field(
        None,
        description="errors by field, the first 20; only for the code invalid_request",
        json_schema_extra=_never_null,
    )


class ItemResult(Answer):
    """An item that was scored."""

    index: int = Field(ge=0, description="the position of the item in the request")
    result: ScoreResponse


class ItemError(Answer):
    """An item that was not scored: the answer of /v1/score, whose status is in ``error``."""

    index: int = Field(ge=0, description="the position of the item in the request")
    error: Problem


class BatchResponse(Answer):
    """A result or an error for each item, in the order of the request; the status is 200 even if all items failed."""

    results: list[ItemResult | ItemError]


class WeightsResponse(Answer):
    """Weights derived by one method; null where undefined."""

    method: MethodName
    method_params: dict[str, float | str | None]
    weights: list[float | None]


class ModelOut(Answer):
    """The served model."""

    name: str
    revision: str | None
    type: str
    fingerprint: str = Field(description="the fingerprint of the default contrast")
    fingerprints: dict[str, str] = Field(description="fingerprints by contrast")
    contrasts: list[ContrastName]
    contrast_words: dict[str, str] = Field(
        description="by contrast: what replaces the image, as a phrase that completes “with …”"
    )
    contrast: ContrastName = Field(description="the default contrast")
    prompt: str = Field(description="the instruction that a bare caption answers")
    dtype: str
    device: str
    path: dict[str, str] = Field(description="by contrast: fast or plain (two full forward passes)")


class MethodOut(Answer):
    """A method of deriving weights."""

    name: MethodName
    label: str = Field(description="display name")
    words: str = Field(description="one-sentence description")
    formula: str = Field(description="formula over the names of columns and parameters")
    paper: str
    arxiv: str | None = Field(description="arXiv id of the paper")
    columns: list[str] = Field(description="the raw scores it uses")
    if_given: list[str] = Field(description="optional columns that it uses where they are given")
    of_dataset: list[str] = Field(
        description="parameters whose null value stands for one that follows from a whole dataset; set them here"
    )
    params: dict[str, Parameter] = Field(description="parameters by name, in display order")
    ordered: list[tuple[str, str]] = Field(description="pairs of parameters where the first must not exceed the second")
    bounds: tuple[str, str] | None = Field(description="the two parameters that bound every weight")
    binary: bool = Field(description="whether every weight is 0 or 1")
    whole_row: bool = Field(description="whether a weight depends on all tokens of its row")


class ModelsResponse(Answer):
    """The served models and the weighting methods."""

    default: str = Field(description="the name of the default model")
    models: list[ModelOut]
    default_method: MethodName
    methods: list[MethodOut]


class Health(Answer):
    """The health of the service."""

    status: str


class Version(Answer):
    """Versions of the service and its libraries."""

    tokensight: str
    python: str
    torch: str
    transformers: str
