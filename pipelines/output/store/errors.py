"""Explain storage errors: which ones a retry may cure, and what the user can do about the others."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from scorer.errors import StoreError

_GRANT: Final = "grant these credentials listing, reading and writing there, or choose another --output"
_KEYS: Final = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile that AWS_PROFILE names"
_RENEW: Final = "renew the credentials, then run the same command again"
_SPACE: Final = "free space there and run the same command again, or choose another --output"

_UNREACHABLE: Final = "EndpointConnectionError"

_BY_CODE: Final[Mapping[str, str]] = {
    "NoSuchBucket": "there is no such bucket: create it first, or correct its name in --output",
    "InvalidBucketName": "correct the bucket's name in --output",
    "ExpiredToken": f"the session token has expired: {_RENEW}",
    "TokenRefreshRequired": f"the session token has expired: {_RENEW}",
    "InvalidToken": f"the session token is not valid: {_RENEW}",
    "InvalidAccessKeyId": f"the access key is unknown: {_KEYS}",
    "SignatureDoesNotMatch": f"the secret key is wrong: {_KEYS}",
    "RequestTimeTooSkewed": "set this machine's clock",
    "AccessDenied": _GRANT,
    "403": f"{_KEYS}; {_GRANT}",
    "NotImplemented": "the store lacks conditional creates (If-None-Match), which commits depend on; use another store",
}
"""By S3 error code; for a HEAD request, by HTTP status."""

_BY_NAME: Final[Mapping[str, str]] = {
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "PartialCredentialsError": "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "CredentialRetrievalError": _RENEW,
    "ProfileNotFound": "correct AWS_PROFILE, or add the profile to the credentials file",
    "InvalidRegionError": "correct AWS_DEFAULT_REGION",
    _UNREACHABLE: "check AWS_ENDPOINT_URL and the network",
}
"""By exception class, for errors raised before a request is sent."""

_BY_ERRNO: Final[Mapping[int, str]] = {
    errno.ENOSPC: f"the disk is full: {_SPACE}",
    errno.EDQUOT: f"the quota is used up: {_SPACE}",
    errno.EROFS: "the file system is read-only: mount it writable, or choose another --output",
    errno.EACCES: "change its permissions, or choose another --output",
    errno.EPERM: "change its permissions, or choose another --output",
    errno.ENOTDIR: "part of the path is a file: name a directory",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter --output",
}


def remedy(error: BaseException) -> str | None:
    """Return what the user can do about an error; None if that is unknown."""
    code = error_code(error)
    for seen in _causes(error):
        if type(seen).__name__ in _BY_NAME:
            return _BY_NAME[type(seen).__name__]
    if code is not None and code in _BY_CODE:
        return _BY_CODE[code]
    if isinstance(error, PermissionError) and error.errno is None:  # from a store; the operating system sets errno
        return f"{_KEYS}; {_GRANT}"
    return _BY_ERRNO.get(error.errno or 0) if isinstance(error, OSError) else None


def may_pass(error: BaseException, *, worked_before: bool) -> bool:
    """Whether a retry may succeed. An unreachable store may be restarting, but only if it ``worked_before``."""
    unreachable = any(type(seen).__name__ == _UNREACHABLE for seen in _causes(error))
    return worked_before if unreachable else remedy(error) is None


def error_code(error: BaseException) -> str | None:
    """Return the S3 code of an error; None if the store gave none."""
    for seen in _causes(error):
        response: Any = getattr(seen, "response", None)
        if isinstance(response, Mapping):
            return str(response.get("Error", {}).get("Code"))
    return None


def store_error(where: str, doing: str, error: BaseException) -> StoreError:
    """Turn ``error`` into one message for the user, with a remedy."""
    said = str(error).rstrip(".") or type(error).__name__
    advice = remedy(error) or "check that the storage is reachable, then run the same command again"
    return StoreError(f"{where} cannot be {doing}: {said}; {advice}")


@contextmanager
def explained(where: str, doing: str) -> Iterator[None]:
    """Raise errors of the operating system as StoreError; FileNotFoundError and FileExistsError pass unchanged."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        raise store_error(where, doing, error) from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__
