"""Store objects in a bucket, through fsspec.

A request may fail although it was carried out, because its answer was lost. Every operation here is therefore safe to
repeat, and is repeated while a retry may succeed. The clients themselves also retry requests a few times.
"""

from __future__ import annotations

import errno
import logging
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import fsspec
from fsspec.core import url_to_fs

from pipelines.output.store.errors import error_code, explained, may_pass, store_error

log = logging.getLogger(__name__)
T = TypeVar("T")

PAUSES: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Longest pauses between tries, in seconds. Each is shortened by up to half at random, so workers that failed together
do not return together."""

_FIRST: Final = "listed"
"""The first operation of every run on its output."""


class ObjectStore:
    """See :class:`pipelines.output.store.Store`.

    One PUT creates an object; a large one is uploaded in parts, and appears only once all of them are complete.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def get(self, key: str) -> bytes:
        return self._persist("read", lambda: bytes(self._fs.cat_file(self._url(key))))

    def put(self, key: str, data: bytes) -> None:
        self._persist("written to", lambda: self._fs.pipe_file(self._url(key), data))

    def create(self, key: str, data: bytes) -> bool:
        return self._persist("written to", lambda: self._create(key, data))

    @contextmanager
    def staged(self, key: str) -> Iterator[IO[bytes]]:
        # Never use fs.open(..., "wb") here: an exception inside its block still publishes what was written so far.
        with (
            explained(f"the folder for temporary files, {tempfile.gettempdir()}, which TMPDIR names,", "written to"),
            tempfile.TemporaryDirectory(prefix="tokensight-") as folder,
        ):
            path = Path(folder) / "object"
            with path.open("x+b") as file:
                yield file
            self._persist("written to", lambda: self._fs.put_file(str(path), self._url(key)))

    def sizes(self) -> dict[str, int]:
        return self._persist(_FIRST, self._sizes)

    @property
    def _fs(self) -> fsspec.AbstractFileSystem:
        return url_to_fs(self.root)[0]  # cached by fsspec, per process

    def _create(self, key: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(self._url(key), data, mode="create")
        except OSError as error:
            # A lost race raises FileExistsError (AWS), or EINVAL if the store's 412 does not name the condition.
            if not isinstance(error, FileExistsError) and error.errno != errno.EINVAL:
                raise
            stored = self._stored(key)
            if stored is None:  # EINVAL had another cause
                raise
            return stored == data  # equal: an earlier request of ours was carried out and its answer was lost
        return True

    def _stored(self, key: str) -> bytes | None:
        self._fs.invalidate_cache()
        try:
            return bytes(self._fs.cat_file(self._url(key)))
        except FileNotFoundError:
            return None

    def _sizes(self) -> dict[str, int]:
        fs = self._fs
        fs.invalidate_cache()
        prefix = str(fs._strip_protocol(self.root)).rstrip("/") + "/"
        found: dict[str, dict[str, Any]] = fs.find(prefix, detail=True)
        keys = ((path.removeprefix(prefix), int(info["size"])) for path, info in found.items())
        return {key: size for key, size in keys if not _hidden(key)}

    def _persist(self, doing: str, call: Callable[[], T]) -> T:
        """Return the call's answer, retrying with pauses while a retry may succeed."""
        for pause in (*PAUSES, None):
            try:
                return call()
            except Exception as error:
                if isinstance(error, FileNotFoundError) and error_code(error) != "NoSuchBucket":
                    raise
                if pause is None or not may_pass(error, worked_before=doing != _FIRST):
                    raise store_error(f"output {self.root}", doing, error) from error
                log.warning("%s could not be %s (%s); trying again", self.root, doing, error)
                time.sleep(random.uniform(pause / 2, pause))
        raise AssertionError("the last try returns or raises")

    def _url(self, key: str) -> str:
        return f"{self.root}/{key}"


def _hidden(key: str) -> bool:
    return any(part.startswith(".") for part in key.split("/"))
