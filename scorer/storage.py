"""Open a path or URL from the user."""

from __future__ import annotations

from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from scorer.documents import is_text
from scorer.errors import ConfigError
from scorer.extras import needing


def open_url(url: str, named: str = "", **options: Any) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a local path, or of any URL that fsspec opens, and the path on it.

    Args:
        named: what the URL refers to, for messages: ``input`` or ``output``.
        options: passed to fsspec (credentials, endpoint).

    Raises:
        ConfigError: the URL's protocol is unknown, or the path, from the root, is not valid UTF-8.
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
    if not is_text(str(path)):
        raise ConfigError(f"{subject} is {str(path)!r}, which is not valid UTF-8; rename the file or folder")
    return fs, str(path)
