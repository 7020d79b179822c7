"""What goes in and out, as pydantic models: validation, and the OpenAPI description with examples that work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, create_model, model_validator
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
    """The contrasts that a request can name: those that need nothing but the image."""
    return tuple(name for name, contrast in CONTRASTS.items() if not contrast.needs_column)


def _one_of(names: Sequence[str], name: str) -> str:
    """The name, refused as pydantic refuses what is not in a Literal."""
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

EXAMPLE_PNG: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAa0lEQVR42u3aQQ3AIAxAUSCIQcl0oIQDSiprcqZhB0II79+b9CU9Nrcn0smVdH"
    "gAAAAAAAAAAAAA+6p/B+IdSxfqbTohAAAAAAAAAAAAAAAAAAAAAAAAAAAAgLVl/0IAAAAAAAAAAAAA1wI+tMEFnYjRovQAAAAASUVORK5CYII="
)
"""A small picture, so that the examples in the description work as they are."""


class Strict(BaseModel):
    """Unknown fields are refused: a misspelt option must not be ignored in silence."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ImageIn(Strict):
    """A picture: exactly one of these."""

    base64: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        None, description="JPEG, PNG, WebP, GIF, BMP or TIFF, in base64 without line breaks"
    )
    data_url: Annotated[str, StringConstraints(min_length=1)] | None = Field(None, description="data:image/…;base64,…")
    url: Annotated[str, StringConstraints(min_length=1, max_length=8192)] | None = Field(
        None, description="http(s) URL; refused unless the operator allows its host"
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
    """The place of the picture in a message."""

    type: Literal["image"]


class Message(Strict):
    """One message of a conversation; every assistant message is scored."""

    role: Literal["system", "user", "assistant"]
    content: str | Annotated[list[TextPart | ImagePart], Field(max_length=64)]


class ScoringOptions(Strict):
    """What to score, and how."""

    text: str | None = Field(None, description="the caption; or give messages")
    messages: Annotated[list[Message], Field(min_length=1, max_length=256)] | None = Field(
        None, description="a conversation, whose assistant messages are scored; or give text"
    )
    prompt: str | None = Field(None, description="the instruction that the caption answers; only with text")
    method: MethodName = Field(DEFAULT_METHOD, description="how weights are derived from raw scores")
    method_params: Annotated[dict[str, float | None], Field(max_length=8)] = Field(
        default_factory=dict, description="parameters of the method; see /v1/models"
    )
    contrast: ContrastName | None = Field(None, description="what the image is replaced by; default: the server's")
    parts: Annotated[list[ReturnedPart], Field(max_length=8)] = Field(
        list(PARTS), alias="return", description="what of each token is returned"
    )

    @model_validator(mode="after")
    def _one_text(self) -> ScoringOptions:
        if (self.text is None) == (self.messages is None):
            raise ValueError("give exactly one of text and messages")
        if self.prompt is not None and self.messages is not None:
            raise ValueError("a prompt goes with text; with messages it is the user's message")
        return self


class ScoreRequest(ScoringOptions):
    """One picture and its text."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"image": {"base64": EXAMPLE_PNG}, "text": "A red square on a blue background."}]
        }
    )

    image: ImageIn


class BatchRequest(Strict):
    """Several samples; each gets its own result or error."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {"image": {"base64": EXAMPLE_PNG}, "text": "A red square."},
                        {"image": {"base64": EXAMPLE_PNG}, "text": "A green circle.", "method": "vig"},
                    ]
                }
            ]
        }
    )

    items: Annotated[list[ScoreRequest], Field(min_length=1)]


Score = Annotated[float, Field(ge=-FLOAT32_MAX, le=FLOAT32_MAX)] | None
Scores = Annotated[list[Score], Field(max_length=65_536)]


class RawScoresIn(Strict):
    """Raw scores of one sample; the lists themselves are added by :func:`weights_request`."""

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
    method_params: Annotated[dict[str, float | None], Field(max_length=8)] = Field(default_factory=dict)
    turns: Annotated[list[Annotated[int, Field(ge=0, le=32_767)]], Field(max_length=65_536)] | None = Field(
        None, description="the turn of each token, ascending; default: one turn"
    )

    def raw(self) -> Iterator[tuple[Column, list[float | None]]]:
        """The lists that were given, and the columns that they are."""
        for column in columns.raw():
            values = getattr(self, column.name, None)
            if values is not None:
                yield column, values

    @model_validator(mode="after")
    def _check(self) -> RawScoresIn:
        lengths = {len(values) for _, values in self.raw()}
        if self.turns is not None:
            lengths.add(len(self.turns))
            if any(a > b for a, b in zip(self.turns, self.turns[1:], strict=False)):
                raise ValueError("turns must ascend")
        if len(lengths) != 1:
            raise ValueError(f"all lists must have one entry per token; they have {sorted(lengths)}")
        return self


def weights_request() -> type[RawScoresIn]:
    """The request with one list per raw score; those that not every output has may be left out."""
    fields: dict[str, Any] = {
        column.name: (Scores, Field(description=column.meaning))
        if column.required
        else (Scores | None, Field(None, description=column.meaning))
        for column in columns.raw()
    }
    says = "Raw scores of one sample, one entry per token; null where undefined."
    return create_model("WeightsRequest", __base__=RawScoresIn, __doc__=says, **fields)


WeightsRequest: Final = weights_request()


class TokenPlace(BaseModel):
    """Which token it is; scores and weight are added by :func:`token_out`."""

    id: int | None = Field(None, description="tokens: the id in the model's vocabulary")
    text: str | None = Field(None, description="tokens: the text; U+FFFD where a token is part of a character")
    turn: int | None = Field(None, description="spans: its turn, an index into turns")
    start: int | None = Field(None, description="spans: first UTF-8 byte within its turn")
    end: int | None = Field(None, description="spans: byte after the last")


def token_out() -> type[TokenPlace]:
    """The answer for one token, with every raw score and the weight."""
    further = [column for column in columns.optional() if column.kind == "span"]
    fields: dict[str, Any] = {
        column.name: (bool | int | None, Field(None, description=f"spans: {column.meaning}")) for column in further
    }
    fields |= {
        column.name: (float | None, Field(None, description=f"raw: {column.meaning}")) for column in columns.raw()
    }
    fields["weight"] = (float | None, Field(None, description="weights: by the method"))
    says = "One scored token; which fields there are is chosen by ``return``."
    return create_model("TokenOut", __base__=TokenPlace, __doc__=says, **fields)


if TYPE_CHECKING:  # a class that is made at run time is no type to a checker
    TokenOut = TokenPlace
else:
    TokenOut = token_out()


class Totals(BaseModel):
    """Over all tokens; null where undefined."""

    tokens: int
    mean_gap: float | None
    logprob_clean: float | None = Field(description="sum, nats")
    logprob_contrast: float | None = Field(description="sum, nats")
    mean_weight: float | None


class Timing(BaseModel):
    """Milliseconds."""

    queue_ms: float = Field(description="from encoded to the start of its batch")
    engine_ms: float = Field(description="the whole of its batch")
    total_ms: float = Field(description="from the request's arrival")


class ScoreResponse(BaseModel):
    """Scores of one sample."""

    request_id: str
    model: str
    fingerprint: str = Field(description="identifies all that decides raw scores; equal ones are comparable")
    contrast: ContrastName
    method: MethodName
    method_params: dict[str, float | None] = Field(description="complete, defaults filled in")
    turns: list[str] = Field(description="the text of each scored turn")
    tokens: list[TokenOut]
    totals: Totals
    timing: Timing


class Problem(BaseModel):
    """An error, by RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="stable, for programs")
    request_id: str
    errors: list[dict[str, Any]] | None = Field(None, description="which fields, with status 422")


class ItemOut(BaseModel):
    """One item's result, or its error."""

    index: int
    result: ScoreResponse | None = None
    error: Problem | None = None


class BatchResponse(BaseModel):
    """In the order of the request."""

    results: list[ItemOut]


class WeightsResponse(BaseModel):
    """Weights by one method; null where undefined."""

    method: MethodName
    method_params: dict[str, float | None]
    weights: list[float | None]


class ModelOut(BaseModel):
    """A model that is served."""

    name: str
    revision: str | None
    type: str
    fingerprint: str = Field(description="of the default contrast")
    fingerprints: dict[str, str] = Field(description="by contrast")
    contrasts: list[ContrastName]
    contrast_words: dict[str, str] = Field(
        description="by contrast: what stands in for the image, in words that complete “with …”"
    )
    contrast: ContrastName = Field(description="the default")
    prompt: str = Field(description="the instruction that a bare caption answers")
    dtype: str
    device: str
    path: dict[str, str] = Field(description="by contrast: fast, or plain (two full forward passes)")


class MethodOut(BaseModel):
    """A way to derive weights."""

    name: MethodName
    label: str = Field(description="its name in a user interface")
    words: str = Field(description="one sentence for people")
    formula: str = Field(description="over columns and parameters by their names")
    paper: str
    arxiv: str | None = Field(description="the paper's id on arXiv")
    columns: list[str] = Field(description="what it reads of raw scores")
    params: dict[str, Parameter] = Field(description="by name, in the order in which they are shown")
    ordered: list[tuple[str, str]] = Field(description="pairs of parameters, the first at most the second")
    bounds: tuple[str, str] | None = Field(description="the parameters that every weight lies between")
    binary: bool = Field(description="every weight is 0 or 1")
    whole_row: bool = Field(description="a weight depends on all tokens of its row")


class ModelsResponse(BaseModel):
    """What can be asked for."""

    default: str = Field(description="name of the default model")
    models: list[ModelOut]
    default_method: MethodName
    methods: list[MethodOut]


class Health(BaseModel):
    """Whether the service works."""

    status: str


class Version(BaseModel):
    """What runs."""

    tokensight: str
    python: str
    torch: str
    transformers: str
