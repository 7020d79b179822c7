"""Mistakes that show before anything is read: an output that is the input, or that cannot be written to."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from fsspec.core import split_protocol, url_to_fs

from pipelines.sources.listing import glob_root
from scorer.errors import ConfigError


def check_paths(input_url: str, output_url: str) -> None:
    """Refuse an output that is, holds or lies inside the input, and a local output that cannot be written.

    Raises:
        ConfigError: naming what to change.
    """
    source, target = _root(input_url), _root(output_url)
    if source[0] == "file" and Path(source[1]).is_file():
        source = ("file", source[1].parent)
    if source[0] == target[0]:
        inside = target[1] == source[1] or source[1] in target[1].parents or target[1] in source[1].parents
        if inside:
            raise ConfigError(
                f"output {output_url!r} and input {input_url!r} lie inside each other; scores published under the "
                "shards' own names would mix with the data: choose an --output beside the input"
            )
    if target[0] == "file":
        _check_writable(Path(target[1]))


def _root(url: str) -> tuple[str, PurePosixPath]:
    """The protocol and the directory that an input or output stands for; of a glob, what precedes it."""
    try:
        fs, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{url!r} cannot be opened: {error}") from error
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    plain = glob_root(str(path))
    if "file" in protocols:
        return "file", PurePosixPath(Path(plain).resolve())
    return protocols[0], PurePosixPath(split_protocol(plain)[1])


def _check_writable(folder: Path) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise ConfigError(f"output {folder}: {existing} is a file; name a directory")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"output {folder}: {existing} may not be written to; change its permissions or the --output")
