"""Where a row's picture is: inside the row, or in a file beside its shard."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

from pipelines.sources.listing import is_local
from scorer.errors import FailureCode, RowError
from scorer.types import ImageSource


@dataclass(frozen=True, slots=True)
class ImageResolver:
    """Turns an image cell into what a sample holds: bytes, or a local path (opened, bounded, by the decoder).

    A path is relative to the shard's folder. Beside a remote shard the bytes are read here, through the same file
    system only: a dataset from elsewhere does not name files of this machine.
    """

    fs: fsspec.AbstractFileSystem
    shard_path: str
    max_bytes: int

    def images(self, cell: Any) -> tuple[ImageSource, ...]:
        """The row's images: one, or as many as a list cell holds.

        Raises:
            RowError: an image is null, absent, not reachable from here, or larger than the limit.
        """
        if isinstance(cell, list):
            return tuple(self._image(part) for part in cell)
        return (self._image(cell),)

    def _image(self, cell: Any) -> ImageSource:
        data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
        if isinstance(data, str):
            data, path = None, data
        if data is not None:
            return data
        if not path:
            raise RowError(FailureCode.IMAGE_MISSING, "the row names no image: its image column is null or empty")
        return self._file(path)

    def _file(self, path: str) -> ImageSource:
        scheme = urlsplit(path).scheme if "://" in path else ""
        if scheme in ("http", "https"):
            raise RowError(FailureCode.IMAGE_MISSING, f"image {path[:200]!r} is a URL; URLs are not fetched")
        if is_local(self.fs):
            if scheme not in ("", "file"):
                raise RowError(FailureCode.IMAGE_MISSING, f"image {path[:200]!r} is not a local file, its shard is")
            return str(Path(self.shard_path).parent / path.removeprefix("file://"))
        return self._remote(path, scheme)

    def _remote(self, path: str, scheme: str) -> bytes:
        protocols = (self.fs.protocol,) if isinstance(self.fs.protocol, str) else tuple(self.fs.protocol)
        if path.startswith("/") or (scheme and scheme not in protocols):
            raise RowError(FailureCode.IMAGE_MISSING, f"image {path[:200]!r} does not lie beside its remote shard")
        folder = posixpath.dirname(self.fs._strip_protocol(self.shard_path))
        target = self.fs._strip_protocol(path) if scheme else posixpath.normpath(posixpath.join(folder, path))
        try:
            size = self.fs.info(target)["size"]
            if size > self.max_bytes:
                problem = f"image {path[:200]!r} has {size:,} bytes, over the limit of {self.max_bytes:,}"
                raise RowError(FailureCode.IMAGE_TOO_LARGE, f"{problem}; raise --max-image-bytes to allow it")
            return bytes(self.fs.cat_file(target, end=self.max_bytes))
        except (FileNotFoundError, IsADirectoryError) as error:
            raise RowError(FailureCode.IMAGE_MISSING, f"image {path[:200]!r} does not exist") from error
