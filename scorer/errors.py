"""Define every exception that tokensight raises on purpose.

    TokensightError
    ├── ConfigError         an option is unknown, of the wrong type or out of range
    │   └── MissingPackageError   an optional package is not installed; names the extra that installs it
    ├── ModelError          the reference model cannot be loaded or is not supported
    ├── TableError          a weights table is missing, unfinished or does not match the data it is read with
    ├── SpanError           tokens and text do not line up
    ├── WeightsError        weights do not fit the loss they are given to
    ├── RunError            a run cannot continue, or must not touch what its output holds
    │   ├── OtherRunError   the output belongs to another run, or to none
    │   └── StoreError      the output's storage refuses, or keeps failing
    ├── BatchTooLargeError  rows cannot share a forward pass; carries the budget to try next
    └── RowError            one row cannot be scored; carries a FailureCode and costs only that row

Every message names the subject, the actual value, the limit and the remedy.
"""

from __future__ import annotations

from enum import StrEnum


class FailureCode(StrEnum):
    """Why a row was not scored; stored in the ``status`` column (a scored row has ``ok``)."""

    IMAGE_MISSING = "image_missing"
    """The row names no image, or a path that does not exist."""
    IMAGE_UNREADABLE = "image_unreadable"
    """The bytes have an allowed format but do not decode (truncated, corrupt)."""
    IMAGE_FORMAT = "image_format"
    """The bytes do not have an allowed image format."""
    IMAGE_TOO_LARGE = "image_too_large"
    """The image exceeds the byte or the pixel limit."""
    IMAGE_SHAPE = "image_shape"
    """The image is too elongated or too small: the model's image processor refuses its width and height, or would make
    far more pixels of it than it has."""
    IMAGE_URL_REFUSED = "image_url_refused"
    """The image is a URL that may not be fetched: its host is not allowed, or its syntax or address is refused."""
    IMAGE_NOT_FETCHED = "image_not_fetched"
    """The image's server could not be reached, took too long or answered with an error."""
    ROW_UNREADABLE = "row_unreadable"
    """The row itself is damaged: it is not a JSON object, or its shard ends in the middle of it."""
    TEXT_MISSING = "text_missing"
    """There is no text to score: it is null, empty or only white space, or the tokenizer keeps nothing of it."""
    TEXT_TOO_LONG = "text_too_long"
    """Prompt, image and text together exceed the model's context, or the texts the limit in bytes."""
    TEXT_INVALID = "text_invalid"
    """The text is not a string, or cannot be encoded as UTF-8."""
    CONVERSATION_INVALID = "conversation_invalid"
    """The conversation has unknown roles, no assistant turn, or image markers that do not match the images."""
    TEMPLATE_FAILED = "template_failed"
    """The model's chat template refused this conversation, dropped, repeated or changed one of its texts, or put
    nothing before it."""
    CONTRAST_UNDEFINED = "contrast_undefined"
    """The contrast input does not exist for this row: it has no contrast image, the contrast encodes to other tokens,
    or it leaves nothing to predict a label from (an image directly before the text)."""
    NON_FINITE = "non_finite"
    """The model returned NaN or infinity for this row."""
    SCORING_FAILED = "scoring_failed"
    """The model raised an error on this row, even when the row was tried alone."""
    WORKER_CRASH = "worker_crash"
    """The worker process died on this row more often than allowed."""
    ROW_TIMEOUT = "row_timeout"
    """Encoding or scoring this row took longer than allowed, even when it was tried alone."""


class TokensightError(Exception):
    """The base of every error that tokensight raises on purpose."""


class ConfigError(TokensightError, ValueError):
    """An option is unknown, of the wrong type or out of range."""


class MissingPackageError(ConfigError, ImportError):
    """A required optional package is not installed; the message names the extra that installs it."""


class ModelError(TokensightError):
    """The reference model cannot be loaded, or its family is not supported."""


class TableError(TokensightError):
    """A weights table is missing, unfinished or does not match the data it is read with."""


class SpanError(TokensightError, ValueError):
    """Tokens, offsets or byte spans do not line up with the text or with each other."""


class WeightsError(TokensightError, ValueError):
    """Weights are negative, not finite, or differ in shape from the labels."""


class RunError(TokensightError):
    """A run cannot continue, or must not touch what its output holds."""


class OtherRunError(RunError):
    """The output belongs to a run with other scores or other data, or holds files from no run at all."""


class StoreError(RunError):
    """The output's storage refuses or keeps failing: full, read-only, absent, or wrong or expired credentials."""


class BatchTooLargeError(TokensightError):
    """Several rows cannot share a forward pass: it ran out of memory, or raised although each row is scored alone.

    Attributes:
        smaller: the budget in tokens to try next, at least 1.
    """

    def __init__(self, problem: str, smaller: int) -> None:
        super().__init__(problem)
        self.smaller = max(1, smaller)


def explain(error: BaseException) -> str:
    """Return an error of a library for a message: its class, without which a KeyError says nothing, and its text.

    The text is put on one line.
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class RowError(TokensightError):
    """One row cannot be scored. The job continues; the row is written with this code and message."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[RowError], tuple[FailureCode, str]]:
        # The default reduces to the message alone, which then fails to unpickle in another process.
        return (type(self), (self.code, self.message))
