"""Check paths before anything is read: the output must lie apart from the input, and be writable."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from fsspec.core import split_protocol

from pipelines.sources.images import is_web
from pipelines.sources.listing import glob_root, is_local
from scorer.errors import ConfigError
from scorer.storage import open_url


def check_paths(input_url: str, output_url: str) -> None:
    """Check that the output neither overlaps the input nor, if local, is read-only.

    Raises:
        ConfigError: A check failed; the message says what to change.
    """
    source, target = _root(input_url, "input"), _root(output_url, "output")
    if source[0] == "file" and Path(source[1]).is_file():
        source = ("file", source[1].parent)
    if source[0] == target[0]:
        inside = target[1] == source[1] or source[1] in target[1].parents or target[1] in source[1].parents
        if inside:
            raise ConfigError(
                f"output {output_url!r} and input {input_url!r} overlap; scores are published under the "
                "names of the shards and would mix with the data: choose an --output outside the input"
            )
    if target[0] == "file":
        _check_writable(Path(target[1]))


def check_image_root(root: str | None) -> None:
    """Check that a local root of image paths is a folder: otherwise each row would fail for its own image.

    Raises:
        ConfigError: it is not.
    """
    if root is None or is_web(root):
        return
    fs, path = open_url(root, "image root")
    if is_local(fs) and not Path(path).is_dir():
        problem = "is a file" if Path(path).exists() else "does not exist"
        raise ConfigError(f"--image-root {root!r} {problem}; give the folder that image paths are relative to")


def _root(url: str, named: str) -> tuple[str, PurePosixPath]:
    """Return the protocol and directory of an input or output; for a glob, the directory that precedes it."""
    fs, path = open_url(url, named)
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    plain = glob_root(path)
    if "file" in protocols:
        return "file", PurePosixPath(Path(plain).resolve())
    return protocols[0], PurePosixPath(split_protocol(plain)[1])


def is_writable(url: str) -> bool:
    """Return whether a file could be written there, as far as permissions tell: True for anything but a local path."""
    if "://" in url:
        return True
    path = Path(url)
    if path.exists():
        return path.is_file() and os.access(path, os.W_OK)
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _check_writable(folder: Path) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise ConfigError(f"output {folder}: {existing} is a file; give a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(
            f"output {folder}: {existing} is not writable; change its permissions, or give another --output"
        )
