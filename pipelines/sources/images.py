"""Find a row's image: inside the row, in a file beside its shard or below a folder, or at an allowed URL."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import fsspec

from pipelines.sources.listing import is_local, open_input
from pipelines.sources.redacted import without_secrets
from scorer.base64_images import decode_base64, find_base64
from scorer.errors import ConfigError, FailureCode, RowError
from scorer.fetching.fetcher import Fetcher
from scorer.types import ImageSource

_WEB: Final = re.compile(r"https?://", re.IGNORECASE)
_UNESCAPED: Final = "!$&'()*+,;=:@~"
"""Characters of a file name that stand for themselves in the path of a URL (RFC 3986, section 3.3)."""
_SCHEME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*)://")
_MAX_NAME: Final = 1024
"""Bytes of an object's name; S3, Google Cloud Storage and Azure have no longer ones."""


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """Where images outside the rows may come from.

    Attributes:
        root: folder or URL that paths are relative to and must stay below; None means the shard's folder.
        max_bytes: limit for one image that is read here, from a remote file system or a tar.
        fetcher: fetches URLs, from the hosts that it allows.
    """

    root: str | None = None
    max_bytes: int = 64 * 2**20
    fetcher: Fetcher = field(default_factory=Fetcher)

    def __post_init__(self) -> None:
        """Refuse a root on the web that the fetcher would refuse for every image. Raise ConfigError."""
        if self.root is None or not is_web(self.root):
            return
        if "?" in self.root or "#" in self.root:
            raise ConfigError(
                f"--image-root {self.root[:200]!r} has a query or a fragment; give the folder's URL without it"
            )
        try:
            self.fetcher.check(self.root)
        except RowError as error:
            shown = error.message.replace(self.root, without_secrets(self.root))
            raise ConfigError(f"--image-root: {shown}") from error

    def fingerprint(self) -> dict[str, Any]:
        """Return what determines which image a row has; defaults are left out."""
        root = {} if self.root is None else {"image_root": without_secrets(self.root)}
        return root | ({"image_hosts": sorted(self.fetcher.hosts)} if self.fetcher.hosts else {})

    def resolver(self, fs: fsspec.AbstractFileSystem, shard_path: str) -> ImageResolver:
        """Return the resolver for the rows of one shard."""
        if self.root is None:
            folder = posixpath.dirname(str(fs._strip_protocol(shard_path)))
            return ImageResolver(fs, folder, False, self.max_bytes, self.fetcher)
        if is_web(self.root):
            return ImageResolver(fs, self.root.rstrip("/"), True, self.max_bytes, self.fetcher)
        root_fs, root = open_input(self.root)
        return ImageResolver(root_fs, root.rstrip("/"), True, self.max_bytes, self.fetcher)


@dataclass(frozen=True, slots=True)
class UnreadImages(ImageOptions):
    """Tells where a row has images, and reads none of them: for those who need the texts alone."""

    def resolver(self, fs: fsspec.AbstractFileSystem, shard_path: str) -> ImageResolver:
        """Return a resolver whose images are all empty."""
        return _UnreadResolver(fs, "", False, self.max_bytes, self.fetcher)


@dataclass(frozen=True, slots=True)
class ImageResolver:
    """Turns an image cell into bytes, or into a local path that the decoder opens within its limits.

    A path is relative to ``folder``, and must stay below it if the user named it (``confined``). A folder on the web
    (http, https) is reached through the fetcher and its rules, like any image by URL. On another remote file
    system the bytes are read here, through that file system only: a remote dataset cannot name files on this machine.
    """

    fs: fsspec.AbstractFileSystem
    folder: str
    confined: bool
    max_bytes: int
    fetcher: Fetcher

    @property
    def waits(self) -> bool:
        """Whether an image may cost a round trip."""
        return bool(self.fetcher.hosts) or is_web(self.folder) or not is_local(self.fs)

    def images(self, cell: Any) -> tuple[ImageSource, ...]:
        """Return the images of a cell: one, or as many as its list contains. Nulls are absent images.

        Raises:
            RowError: an image does not exist, may not be read from here, or exceeds the limit.
        """
        if isinstance(cell, (list, tuple)):
            return tuple(image for part in cell for image in self.images(part))
        image = self.own_image(cell)
        return () if image is None else (image,)

    def own_image(self, cell: Any) -> ImageSource | None:
        """Return the image of a single value; None if it is null, or empty in its bytes and its path.

        Raises:
            RowError: as :meth:`images`.
        """
        data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
        if isinstance(data, str):
            data, path = None, data or path
        if isinstance(data, bytes) and (data or not isinstance(cell, dict) or path):
            held = self._base64(data)
            return data if held is None else held
        if (data is not None and not isinstance(data, bytes)) or not isinstance(path, str | None):
            found = f"of type {type(data).__name__}"
            if isinstance(cell, dict):
                found = f"a struct whose bytes are {found} and whose path is {path!r}"
            raise RowError(
                FailureCode.IMAGE_MISSING, f"the image is {found[:200]}; give bytes, a path, a URL or base64"
            )
        if not path:
            return None
        held = self._base64(path)
        return self._file(path) if held is None else held

    def _base64(self, value: str | bytes) -> bytes | None:
        """Decode a data URL or plain base64; None if the value is neither: see :func:`find_base64`."""
        encoded = find_base64(value, self._exists)
        if encoded is None:
            return None
        if len(encoded) * 3 // 4 > self.max_bytes + 4096:
            size = len(encoded) * 3 // 4
            problem = f"an image in base64 has about {size:,} bytes, over the limit of {self.max_bytes:,}"
            raise RowError(FailureCode.IMAGE_TOO_LARGE, f"{problem}; raise --max-image-bytes to allow it")
        try:
            return decode_base64(encoded)
        except ValueError as error:
            problem = f"the image is not valid base64 ({error}); it begins with {value[:40]!r}; encode it again"
            raise RowError(FailureCode.IMAGE_UNREADABLE, problem) from error

    def _exists(self, path: str) -> bool:
        if is_local(self.fs):
            return (Path(self.folder) / path).exists()
        return bool(self.fs.exists(posixpath.join(self.folder, path)))

    def _file(self, path: str) -> ImageSource:
        found = _SCHEME.match(path)  # urlsplit raises for an authority such as [IMG]
        scheme = found[1].lower() if found else ""
        if scheme in ("http", "https"):
            return self.fetcher.fetch(path)
        if self.confined and (scheme or not _below(path)):
            raise RowError(
                FailureCode.IMAGE_MISSING,
                f"image {path[:200]!r} is not below the image root {self.folder}; give a relative path without ..",
            )
        if is_web(self.folder) and not scheme:
            return self.fetcher.fetch(_joined(self.folder, path))
        if is_local(self.fs):
            if scheme not in ("", "file"):
                problem = f"image {path[:200]!r} is not a local file, but its shard is"
                raise RowError(FailureCode.IMAGE_MISSING, f"{problem}; name the images' folder with --image-root")
            return str(Path(self.folder) / path.removeprefix("file://"))
        return self._remote(path, scheme)

    def _remote(self, path: str, scheme: str) -> bytes:
        protocols = (self.fs.protocol,) if isinstance(self.fs.protocol, str) else tuple(self.fs.protocol)
        if path.startswith("/") or (scheme and scheme not in protocols):
            problem = f"image {path[:200]!r} is neither relative to its remote shard nor on the shard's file system"
            raise RowError(FailureCode.IMAGE_MISSING, f"{problem}; name the images' folder with --image-root")
        target = self.fs._strip_protocol(path) if scheme else posixpath.normpath(posixpath.join(self.folder, path))
        if len(target.encode(errors="surrogatepass")) > _MAX_NAME:
            problem = f"image {path[:200]!r} has a name of more than {_MAX_NAME} bytes, too long for any store"
            raise RowError(FailureCode.IMAGE_MISSING, f"{problem}; give it a shorter one")
        try:
            size = self.fs.info(target)["size"]
            if size > self.max_bytes:
                problem = f"image {path[:200]!r} has {size:,} bytes, over the limit of {self.max_bytes:,}"
                raise RowError(FailureCode.IMAGE_TOO_LARGE, f"{problem}; raise --max-image-bytes to allow it")
            return bytes(self.fs.cat_file(target, end=self.max_bytes))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise RowError(FailureCode.IMAGE_MISSING, f"image {path[:200]!r} does not exist") from error
        except ValueError as error:  # a name that the file system does not take
            problem = f"image {path[:200]!r} cannot be opened ({str(error)[:200]}); check its path"
            raise RowError(FailureCode.IMAGE_MISSING, problem) from error
        except (RowError, OSError):
            raise
        except Exception as error:  # clients have errors of their own, such as botocore's NoCredentialsError
            raise OSError(f"image {path[:200]!r} cannot be read: {type(error).__name__}: {error}") from error


class _UnreadResolver(ImageResolver):
    """Finds an image in every value that is not empty."""

    @property
    def waits(self) -> bool:
        return False

    def own_image(self, cell: Any) -> ImageSource | None:
        found = any(cell.values()) if isinstance(cell, dict) else cell
        return b"" if found else None


def is_web(url: str) -> bool:
    """Whether a folder is on the web: an http or https URL, in any case."""
    return _WEB.match(url) is not None


def _joined(folder: str, path: str) -> str:
    """Return the URL of a path below a folder on the web.

    A path is a file's name, not part of a URL: what would be a query, a fragment or an escape in one is escaped. The
    separators and ``..`` are resolved here, before the server sees them.
    """
    parts = urlsplit(folder)
    below = quote(path.replace("\\", "/"), safe="/" + _UNESCAPED)
    return f"{parts.scheme}://{parts.netloc}{posixpath.normpath(posixpath.join('/', parts.path.lstrip('/'), below))}"


def _below(path: str) -> bool:
    """Whether a relative path stays below its folder, whichever separators a system uses."""
    parts = path.replace("\\", "/").split("/")
    return not Path(path).is_absolute() and parts[0] != "" and ".." not in parts
