"""The dataset that an output answers, opened as its run opened it: texts and pictures are in no published file."""

from __future__ import annotations

from pathlib import Path

from pipelines.run_record import RunRecord
from pipelines.sources import Source
from pipelines.sources.columns import Columns
from pipelines.sources.parquet import ParquetSource
from scorer.config import DEFAULT_PROMPT
from scorer.errors import ConfigError


def open_dataset(record: RunRecord, input: str | None = None) -> Source:
    """The source of the run that ``record`` tells of.

    Args:
        input: where the dataset is by now; None takes the run's own input.

    Raises:
        ConfigError: the dataset is not there, or not as the run read it.
    """
    place = input or record.input
    if "://" not in place and input is None and not Path(place).is_absolute() and not _is_there(place):
        raise ConfigError(
            f"the run's input was {place!r}, relative to a folder that is not this one; name the dataset with --input"
        )
    try:
        source = ParquetSource(
            place,
            Columns(**record.source["columns"]),
            prompt=str(record.fingerprint.get("prompt", DEFAULT_PROMPT)),
            contrast_images=record.source["columns"].get("contrast_image") is not None,
        )
        source.shards()
    except (ConfigError, KeyError, TypeError) as error:
        raise ConfigError(f"the run's dataset cannot be opened: {error}; name it with --input") from error
    return source


def _is_there(place: str) -> bool:
    return any(Path().glob(place)) if set("*?[") & set(place) else Path(place).exists()
