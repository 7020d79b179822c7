"""The exceptions of tokensight.

    TokensightError
    ├── ConfigError         an option is unknown, of the wrong type or out of range
    │   └── MissingPackageError   an optional package is not installed; names the extra that brings it
    ├── ModelError          the reference model cannot be loaded or is not supported
    ├── TableError          a weights table is missing, unfinished or does not fit the data it is read beside
    ├── SpanError           tokens and text do not lie on each other
    ├── WeightsError        weights cannot weigh the loss they are given to
    ├── RunError            a run cannot go on, or must not touch what its output holds
    │   ├── OtherRunError   the output belongs to another run, or to none
    │   └── StoreError      the storage of the output refuses, or goes on failing
    └── RowError            one row cannot be scored; carries a FailureCode and costs that row only

Every message names the subject, the actual value, the limit and the remedy.
"""

from __future__ import annotations

from enum import StrEnum


class FailureCode(StrEnum):
    """Why a row was not scored; stored in the ``status`` column (a scored row has ``ok``)."""

    IMAGE_MISSING = "image_missing"
    """The row names no image, or a path that does not exist."""
    IMAGE_UNREADABLE = "image_unreadable"
    """The bytes are of an allowed format but do not decode (truncated, corrupt)."""
    IMAGE_FORMAT = "image_format"
    """The bytes are not of an allowed image format."""
    IMAGE_TOO_LARGE = "image_too_large"
    """The image exceeds the byte or the pixel limit."""
    IMAGE_URL_REFUSED = "image_url_refused"
    """The image is a URL that may not be fetched: its host is not allowed, or its form or address is refused."""
    IMAGE_NOT_FETCHED = "image_not_fetched"
    """The image's server could not be reached, took too long or answered with an error."""
    ROW_UNREADABLE = "row_unreadable"
    """The row itself is damaged: it is no JSON object, or its shard ends inside it."""
    TEXT_MISSING = "text_missing"
    """There is no text to score: null, empty, white space only, or nothing that the tokenizer keeps."""
    TEXT_TOO_LONG = "text_too_long"
    """Prompt, image and text together exceed the model's context, or the texts the limit in bytes."""
    TEXT_INVALID = "text_invalid"
    """The text is not a string, or cannot be encoded as UTF-8."""
    CONVERSATION_INVALID = "conversation_invalid"
    """Unknown roles, no assistant turn, or image markers that do not match the images."""
    TEMPLATE_FAILED = "template_failed"
    """The model's chat template refused this conversation, dropped, repeated or changed one of its texts, or put
    nothing before it."""
    CONTRAST_UNDEFINED = "contrast_undefined"
    """The contrast input does not exist for this row: it has no contrast image, the contrast encodes to other tokens,
    or it leaves nothing to predict a label from (an image directly before the text)."""
    NON_FINITE = "non_finite"
    """The model returned NaN or infinity for this row."""
    SCORING_FAILED = "scoring_failed"
    """The model raised on this row, also when it was tried alone."""
    WORKER_CRASH = "worker_crash"
    """The worker process died on this row more often than it may."""
    ROW_TIMEOUT = "row_timeout"
    """Encoding or scoring this row took longer than it may, also when it was tried alone."""


class TokensightError(Exception):
    """Base of every error that tokensight raises on purpose."""


class ConfigError(TokensightError, ValueError):
    """An option is unknown, of the wrong type or out of range."""


class MissingPackageError(ConfigError, ImportError):
    """An optional package that something needs is not installed; the message names the extra that brings it."""


class ModelError(TokensightError):
    """The reference model cannot be loaded or is of a family that is not supported."""


class TableError(TokensightError):
    """A weights table is missing, unfinished or does not belong to the data it is read beside."""


class SpanError(TokensightError, ValueError):
    """Tokens, offsets or byte spans do not lie on the text, or on each other."""


class WeightsError(TokensightError, ValueError):
    """Weights of another shape than the labels, or negative, or not a number."""


class RunError(TokensightError):
    """A run cannot go on, or must not touch what its output holds."""


class OtherRunError(RunError):
    """The output belongs to a run of other scores or other data, or holds files that are no run's."""


class StoreError(RunError):
    """The storage of the output refuses, or goes on failing: full, read-only, absent, wrong or expired credentials."""


class RowError(TokensightError):
    """One row cannot be scored. The job goes on; the row is written with this code and message."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[RowError], tuple[FailureCode, str]]:
        # The default reduces to the message alone and fails to unpickle in another process.
        return (type(self), (self.code, self.message))
