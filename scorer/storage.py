"""Open a path or URL from the user."""

from __future__ import annotations

from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from scorer.errors import ConfigError
from scorer.extras import needing


def open_url(url: str, named: str = "", **options: Any) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a local path, or of any URL that fsspec opens, and the path on it.

    Args:
        named: what the URL refers to, for messages: ``input`` or ``output``.
        options: passed to fsspec (credentials, endpoint).

    Raises:
        ConfigError: the URL's protocol is unknown.
        MissingPackageError: the package for its file system is not installed.
    """
    subject = f"{named} {url!r}".strip()
    try:
        with needing(subject):
            fs, path = url_to_fs(url, **options)
    except ConfigError:
        raise
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{subject} cannot be opened: {error}") from error
    return fs, str(path)
