"""Which columns of its dataset a run has read: its published files say so in their metadata."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from scorer.errors import ConfigError
from scorer.table import read_metadata, shown
from scorer.training.reader import PublishedWeights

TEXT_OPTION: Final = "--text-column"
IMAGE_OPTION: Final = "--image-column"
PROMPT_COLUMN_OPTION: Final = "--prompt-column"
PROMPT_OPTION: Final = "--prompt"


@dataclass(frozen=True, slots=True)
class ColumnOptions:
    """What the user says instead of the run; None where the run's own word holds. ``A,B`` names several columns."""

    text: str | None = None
    image: str | None = None
    prompt_column: str | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class RunColumns:
    """What a run has read.

    Attributes:
        text: the column of the conversation or of the caption; or several, each with a caption of its own.
        image: the columns of images, in order.
        prompt_column: the column of the instruction that a caption answers.
        prompt: the instruction where there is no such column or it is null; None if the run does not say.
        format: ``parquet``, ``json``, ``jsonl`` or ``webdataset``; None if the run does not say.
        layout: ``sidecar`` or ``merged``; None if the run does not say.
    """

    text: tuple[str, ...]
    image: tuple[str, ...]
    prompt_column: str | None
    prompt: str | None
    format: str | None
    layout: str | None

    def names(self) -> list[str]:
        """Every column that is read."""
        return [*self.text, *self.image, *([] if self.prompt_column is None else [self.prompt_column])]

    def refuse_absent(self, there: Collection[str], where: str, *, record: bool = False) -> None:
        """Raise ConfigError where ``there``, the columns of ``where``, lacks one that was read.

        Args:
            record: ``there`` are the keys of one record, which need not have a prompt, nor every one of several texts.
        """
        read = dict.fromkeys(self.image, IMAGE_OPTION)
        if not record or not any(name in there for name in self.text):
            read = dict.fromkeys(self.text, TEXT_OPTION) | read
        if self.prompt_column is not None and not record:
            read[self.prompt_column] = PROMPT_COLUMN_OPTION
        for name, option in read.items():
            if name not in there:
                raise ConfigError(
                    f"{where} has no column {name!r}; it has {shown(list(there))}: name the column by {option}"
                )


def run_columns(published: PublishedWeights, asked: ColumnOptions) -> RunColumns:
    """Say what the run has read, by its published files' metadata and by the options that override it.

    Raises:
        ConfigError: neither says which column holds the text or the image.
    """
    metadata = _metadata(published)
    source: Mapping[str, Any] = metadata.get("source", {})
    read: Mapping[str, Any] = source.get("columns", {})

    def columns(option: str, asked: str | None, own: Any) -> tuple[str, ...]:
        if asked is not None:
            return tuple(asked.split(","))
        if own is None:
            raise ConfigError(
                f"the files of {published.root} do not say which columns of the dataset were read (another tool wrote "
                f"them, or an early release): name the column by {option}"
            )
        return (own,) if isinstance(own, str) else tuple(own)

    return RunColumns(
        text=columns(TEXT_OPTION, asked.text, read.get("messages") or read.get("text")),
        image=columns(IMAGE_OPTION, asked.image, read.get("image")),
        prompt_column=read.get("prompt") if asked.prompt_column is None else asked.prompt_column,
        prompt=metadata.get("fingerprint", {}).get("prompt") if asked.prompt is None else asked.prompt,
        # A run on Parquet does not name its format.
        format=source.get("format", "parquet") if source else None,
        layout=metadata.get("layout"),
    )


def _metadata(published: PublishedWeights) -> dict[str, Any]:
    """All files of a run have the same; an empty one is passed over."""
    for name in published.shards:
        for batch in published.batches(name, columns=["status"]):
            return read_metadata(batch.schema)
    return {}
