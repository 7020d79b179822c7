"""An output's objects with their ages, hidden ones too, and their removal. A run's own ``Store`` can do neither."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from fsspec.core import url_to_fs

_TIMES: Final = ("LastModified", "mtime", "updated", "last_modified", "created")
"""Where file systems say in a listing when an object was written; ``created`` last, which may mean less."""


@dataclass(frozen=True, slots=True)
class Item:
    """An object as it was listed."""

    key: str
    size: int
    modified: datetime


def list_items(root: str) -> dict[str, Item]:
    """Every object below ``root`` by its key. One listing."""
    fs, path = url_to_fs(root)
    fs.invalidate_cache()
    prefix = str(fs._strip_protocol(path)).rstrip("/") + "/"
    found: Mapping[str, Mapping[str, Any]] = fs.find(prefix, detail=True)
    items = (
        Item(name.removeprefix(prefix), int(info["size"]), _modified(fs, name, info)) for name, info in found.items()
    )
    return {item.key: item for item in items}


def modified(root: str, key: str) -> datetime | None:
    """When an object was last written, asked anew; None if it is gone."""
    fs, path = url_to_fs(f"{root}/{key}")
    fs.invalidate_cache()
    try:
        return _modified(fs, path, fs.info(path))
    except FileNotFoundError:
        return None


def remove(root: str, keys: Iterable[str]) -> None:
    """Delete objects one by one; one that is gone already is no error."""
    fs, path = url_to_fs(root)
    for key in keys:
        with suppress(FileNotFoundError):
            fs.rm_file(f"{path.rstrip('/')}/{key}")


def _modified(fs: Any, path: str, info: Mapping[str, Any]) -> datetime:
    value = next((info[name] for name in _TIMES if info.get(name) is not None), None)
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    found = value if isinstance(value, datetime) else fs.modified(path)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
