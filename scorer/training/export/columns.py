"""Find which columns of the dataset a run read, from the metadata of its published files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
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
    """The user's overrides; None to use what the run recorded. ``A,B`` names several columns."""

    text: str | None = None
    image: str | None = None
    prompt_column: str | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class RunColumns:
    """The columns that a run read.

    Attributes:
        text: the column of the conversation or caption; or several columns with one caption each.
        image: the columns of images, in order.
        prompt_column: the column of the instruction that a caption answers.
        prompt: the instruction if there is no such column or it is null; None if the run did not record it.
        format: ``parquet``, ``json``, ``jsonl`` or ``webdataset``; None if the run did not record it.
        layout: ``sidecar`` or ``merged``; None if the run did not record it.
        image_is_recorded: whether the run read the images from these columns; else the user named others.
        conversation: whether the run read the text as messages.
        image_root: the folder or URL that image paths are relative to; None means each shard's folder.
    """

    text: tuple[str, ...]
    image: tuple[str, ...]
    prompt_column: str | None
    prompt: str | None
    format: str | None
    layout: str | None
    image_is_recorded: bool = True
    conversation: bool = False
    image_root: str | None = None

    def names(self) -> list[str]:
        """Return every column that was read."""
        return [*self.text, *self.image, *([] if self.prompt_column is None else [self.prompt_column])]

    def refuse_absent(self, there: Collection[str], where: str, *, record: bool = False, images: bool = True) -> None:
        """Raise ConfigError if a column that was read is absent.

        Args:
            there: the columns that exist.
            where: the file or row they belong to, for the message.
            record: whether ``there`` are the keys of one record, which may lack a prompt, images and some of several
                texts.
        """
        read = {} if record else dict.fromkeys(self.image, IMAGE_OPTION)
        if not record or not any(name in there for name in self.text):
            read = dict.fromkeys(self.text, TEXT_OPTION) | read
        if self.prompt_column is not None and not record:
            read[self.prompt_column] = PROMPT_COLUMN_OPTION
        for name, option in read.items():
            if (count := list(there).count(name)) > 1:
                raise ConfigError(f"{where} has {count} columns {name!r}; name another with {option}, or rename one")
            if name not in there:
                raise ConfigError(
                    f"{where} has no column {name!r}; it has {shown(list(there))}: name the column with {option}"
                )


@dataclass(frozen=True, slots=True)
class ColumnsByShard:
    """The columns that a run read from each shard.

    Attributes:
        common: those of every shard but the ones in ``own``.
        own: those of shards whose columns have other names, by the published file's name.
    """

    common: RunColumns
    own: Mapping[str, RunColumns] = field(default_factory=dict)

    def of(self, shard: str) -> RunColumns:
        """Return the columns of a published shard."""
        return self.own.get(shard, self.common)


def run_columns(published: PublishedWeights, overrides: ColumnOptions) -> ColumnsByShard:
    """Return the columns that the run read, from its published files' metadata and the options that override it.

    An option holds for every shard, those with columns of their own included.

    Raises:
        ConfigError: neither names the column of the text or the image.
    """
    metadata = _metadata(published)
    source: Mapping[str, Any] = metadata.get("source", {})
    own: Mapping[str, Any] = source.get("own_columns", {})
    return ColumnsByShard(
        _columns(published, metadata, source.get("columns", {}), overrides),
        {shard: _columns(published, metadata, read, overrides) for shard, read in own.items()},
    )


def _columns(
    published: PublishedWeights, metadata: Mapping[str, Any], read: Mapping[str, Any], overrides: ColumnOptions
) -> RunColumns:
    """Return the columns of shards of which the run read the columns ``read``, by role."""
    source: Mapping[str, Any] = metadata.get("source", {})

    def columns(option: str, override: str | None, own: Any) -> tuple[str, ...]:
        if override is not None:
            names = tuple(name.strip() for name in override.split(","))
            if "" in names or len(set(names)) < len(names):
                raise ConfigError(f"{option} is {override!r}; name each column once, as in A,B")
            return names
        if not (isinstance(own, str) or (isinstance(own, list) and all(isinstance(name, str) for name in own))):
            raise ConfigError(
                f"the files of {published.root} do not say which columns of the dataset were read (another tool or an "
                f"early release wrote them): name the column with {option}"
            )
        return (own,) if isinstance(own, str) else tuple(own)

    return RunColumns(
        text=columns(TEXT_OPTION, overrides.text, read.get("messages") or read.get("text")),
        image=columns(IMAGE_OPTION, overrides.image, read.get("image")),
        prompt_column=read.get("prompt") if overrides.prompt_column is None else overrides.prompt_column,
        prompt=metadata.get("fingerprint", {}).get("prompt") if overrides.prompt is None else overrides.prompt,
        # A run on Parquet does not name its format.
        format=source.get("format", "parquet") if source else None,
        layout=metadata.get("layout"),
        image_is_recorded=overrides.image is None,
        conversation=overrides.text is None and read.get("messages") is not None,
        image_root=source.get("image_root"),
    )


def _metadata(published: PublishedWeights) -> dict[str, Any]:
    """Return the metadata of the first file with rows; all files of a run have the same."""
    for name in published.shards:
        for batch in published.batches(name, columns=["status"]):
            return read_metadata(batch.schema, f"{published.root}/{name}")
    return {}
