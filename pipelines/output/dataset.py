"""Open the dataset that an output was made from: published files contain neither texts nor images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.output.record import RunRecord
from pipelines.sources import Source
from pipelines.sources.columns import Columns
from pipelines.sources.formats import open_source
from pipelines.sources.images import ImageOptions
from pipelines.sources.listing import is_glob
from scorer.errors import ConfigError
from scorer.fetching.fetcher import Fetcher
from scorer.types import DEFAULT_PROMPT


def open_dataset(record: RunRecord, input: str | None = None) -> Source:
    """Open the source of a run as the run opened it.

    Args:
        input: where the dataset is now; None means where the run read it.

    Raises:
        ConfigError: the dataset does not exist there, or cannot be opened as the run opened it.
    """
    place = input or record.input
    if "://" not in place and input is None and not Path(place).is_absolute() and not _is_there(place):
        raise ConfigError(
            f"the run's input was {place!r}, relative to a folder other than this one; name the dataset with --input"
        )
    try:
        columns = _columns(record.source["columns"])
        own = {name: Columns(**_columns(roles)) for name, roles in record.source.get("own_columns", {}).items()}
        hosts = tuple(record.source.get("image_hosts", ()))
        source = open_source(
            place,
            record.source.get("format", "parquet"),
            Columns(**columns, complete=True, own=own),
            prompt=str(record.fingerprint.get("prompt", DEFAULT_PROMPT)),
            contrast_images=columns.get("contrast_image") is not None,
            images=ImageOptions(record.source.get("image_root"), fetcher=Fetcher(hosts)),
        )
        source.shards()
    except (ConfigError, KeyError, TypeError) as error:
        raise ConfigError(f"the run's dataset cannot be opened: {error}; name it with --input") from error
    return source


def _columns(roles: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the JSON lists among columns by role back into tuples."""
    return {role: tuple(value) if isinstance(value, list) else value for role, value in roles.items()}


def _is_there(place: str) -> bool:
    return any(Path().glob(place)) if is_glob(place) else Path(place).exists()
