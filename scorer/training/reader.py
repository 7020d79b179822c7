"""Read published weights as numpy arrays, with numpy, pyarrow and fsspec only."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from scorer.columns import undefined
from scorer.errors import ConfigError, TableError, explain
from scorer.storage import open_url
from scorer.summary import SUCCESS, parse_summary
from scorer.table import FORMAT_VERSION, SCHEMA, columns_in, read_metadata, shown
from scorer.training.means import check_mean
from scorer.training.row_selection import RowSelection
from scorer.training.rows import Derive, DeriveFunction, Rows, TextLogprobs, WeightRow, as_function, check_contrast
from scorer.training.text_reference import Missing, TextReference
from scorer.weighting.dataset_gaps import DatasetGaps
from scorer.weighting.weight_total import ExactTotal, WeightTotal
from scorer.weights import METHODS, Method

Columns = Sequence[str] | Literal["ours"] | None
"""The columns to read: those named; ``ours``, the run's own, including the optional ones that the file has; or None for
all, including the dataset's in files of ``--layout merged``."""


@dataclass(frozen=True, repr=False)
class PublishedWeights:
    """A published output, or a part of it. Iterating yields every row, shard by shard; nothing is kept in memory.

    Attributes:
        root: the output folder, a local path or URL.
        shards: names of the published files, in the run's order.
        summary: the contents of ``_SUCCESS``; empty for an unfinished run.
        derive: the function that derives the weights from the raw scores; None for the weights that the run stored.
        contrast: the contrast whose scores ``derive`` reads; None for the run's first.
        storage_options: passed to fsspec (credentials, endpoint).
        text: gives each row's scores the column :data:`scorer.columns.LOGPROB_TEXT`, which ``derive`` may read.
        min_gap: the smallest mean gap, in nats, of a row that is not dropped; None drops none.
        mean_weight: what weights are divided by, but for those of rows without an image; None for nothing.
    """

    root: str
    shards: tuple[str, ...]
    summary: Mapping[str, Any]
    derive: DeriveFunction | None = None
    contrast: str | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    text: TextReference | None = None
    min_gap: float | None = None
    mean_weight: float | None = None

    def __repr__(self) -> str:
        return f"<PublishedWeights of {self.description}>"

    @property
    def description(self) -> str:
        """The output in one line: its location, its size, and the method of its weights."""
        rows = sum(self._recorded_rows.get(name, 0) for name in self.shards)
        amount = f"{rows:,} rows in " if self._recorded_rows else ""
        shards = f"{len(self.shards):,} shard{'' if len(self.shards) == 1 else 's'}"
        unfinished = "" if self.summary else " of an unfinished run"
        method = self.derive if self.derive is not None else self.summary.get("method", {}).get("name")
        by = f", weights by {getattr(method, 'name', None) or getattr(method, '__name__', method)}" if method else ""
        reads = self.reference or (None if self.contrast is None else f"the contrast {self.contrast}")
        by += f" and {reads}" if reads else ""
        by += "" if self.mean_weight is None else f", divided by {self.mean_weight:.6g}"
        by += "" if self.min_gap is None else f", rows with a mean gap from {self.min_gap:.6g} nats"
        return f"{self.root!r}: {amount}{shards}{unfinished}{by}"

    @property
    def reference(self) -> str | None:
        """Which P(token) the weights are derived from, if their method reads one of text alone; else None.

        That is the text reference's, or that of the reference model itself without the image.
        """
        if self.text is not None:
            return f"the text reference {self.text.description}"
        if not isinstance(self.derive, Method) or not self.derive.record.text_reference:
            return None
        first = str(self.summary.get("contrast", "")).split(",")[0]
        return f"no text reference, but the contrast {self.contrast or first or 'of the run'}"

    def __iter__(self) -> Iterator[WeightRow]:
        for name in self.shards:
            yield from self.shard(name)

    def shard(self, name: str) -> Iterator[WeightRow]:
        """Yield the rows of one published file, in order.

        Raises:
            TableError: there is no such file, or it is not the file that the run published.
        """
        self._check_name(name)
        text = None if self.text is None else self.text.shard(name)
        for batch in self.batches(name):
            yield from self._rows(batch, name, text)

    def gaps(self, contrast: str | None = None) -> DatasetGaps:
        """Return the log-probability gaps of all scored rows of the finished run, whatever part of it this is.

        Args:
            contrast: which contrast's; None for the one that ``derive`` reads, or the run's first.

        Raises:
            TableError: the run is unfinished, an earlier release wrote it, or it has no such contrast.
        """
        return _recorded_gaps(self.summary, contrast or self.contrast, self.root)

    def rows(self, table: pa.Table | pa.RecordBatch, name: str) -> Rows:
        """Return rows of a published file from its columns.

        Raises:
            TableError: the run lacks the contrast, or the text reference the shard.
        """
        return self._rows(table, name, None if self.text is None else self.text.shard(name))

    def _rows(self, table: pa.Table | pa.RecordBatch, name: str, text: TextLogprobs | None) -> Rows:
        mean = 1.0 if self.mean_weight is None else self.mean_weight
        return Rows(table, name, self.derive, self.contrast, text, self.min_gap, mean)

    def statuses(self) -> Counter[str]:
        """Return how many rows have each status: ``ok``, ``text_only``, ``dropped``, or the code of a failure.

        Every row is read.
        """
        return Counter(row.status for row in self)

    def total(self) -> WeightTotal:
        """Add up the weights of all tokens; every row is read. Those of rows without an image do not count, nor those
        of a row with a weight that is not finite, which cannot be trained on."""
        totals = []
        for name in self.shards:
            total = ExactTotal()
            text = None if self.text is None else self.text.shard(name)
            for batch in self.batches(name):
                total.add(self._rows(batch, name, text).usable_weights())
            totals.append(total.rounded)
        return WeightTotal.merged(totals)  # to the bit what a run records

    def load(self, name: str, *, columns: Sequence[str] | Literal["ours"] = "ours") -> pa.Table:
        """Return all rows of one published file as an Arrow table, with some or all of the run's columns.

        Raises:
            TableError: as in :meth:`shard`.
        """
        batches = list(self.batches(name, columns))
        return pa.Table.from_batches(batches, batches[0].schema if batches else _only(columns))

    def rows_of(self, name: str) -> int:
        """Return the number of rows of a published file."""
        rows = self._recorded_rows.get(name)
        return len(self.load(name, columns=["status"])) if rows is None else rows

    @cached_property
    def _recorded_rows(self) -> dict[str, int]:
        """The number of rows of each shard, from the summary; empty for an unfinished run."""
        return {shard["name"]: shard["rows"] for shard in self.summary.get("shards", [])}

    def _check_name(self, name: str) -> None:
        if name not in self.shards:
            raise TableError(f"{self.root} has no shard {name!r}; it has {shown(self.shards)}")

    def batches(self, name: str, columns: Columns = "ours") -> Iterator[pa.RecordBatch]:
        """Yield the columns of a published file in batches of rows.

        Raises:
            TableError: as in :meth:`shard`.
        """
        self._check_name(name)
        fs, root = open_url(self.root, "weights", **self.storage_options)
        path = f"{root.rstrip('/')}/{name}"
        try:
            with fs.open(path, "rb") as file:
                parquet = pq.ParquetFile(file)
                ours = self._check(name, parquet)
                chosen = ours if columns == "ours" else columns
                yield from parquet.iter_batches(batch_size=1024, columns=chosen and list(chosen))
        except FileNotFoundError as error:
            raise TableError(f"{path} is gone, though the run published it; run the job again to restore it") from error
        except (pa.ArrowException, OSError) as error:
            raise TableError(
                f"{path} is not a readable Parquet file ({explain(error)}); run the job again with --verify to publish "
                "it again"
            ) from error

    def _check(self, name: str, parquet: pq.ParquetFile) -> list[str]:
        """Refuse a file that is not the one that was published; return the names of the run's columns in it."""
        path, schema = f"{self.root.rstrip('/')}/{name}", parquet.schema_arrow
        ours = [column.name for column in columns_in(schema, path)]
        absent = undefined(read_metadata(schema, path).get("fingerprint", {}))
        if isinstance(self.derive, Method):
            self.derive.check_columns(set(ours) - absent, path)
        if self.min_gap is not None and "logprob_clean" in absent:
            raise TableError(
                f"{path} is from a model without images, so its rows have no gaps to choose them by: leave the "
                "selection of rows out"
            )
        version = read_metadata(schema, path).get("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise TableError(
                f"{path} has format version {version}; this release reads version {FORMAT_VERSION}: install a newer one"
            )
        rows = self._recorded_rows.get(name)
        if rows is not None and rows != parquet.metadata.num_rows:
            raise TableError(
                f"{path} has {parquet.metadata.num_rows} rows, but the run published {rows}; it was replaced: run the "
                "job again into an empty output"
            )
        return ours


def read_weights(
    path: str | os.PathLike[str],
    *,
    method: Derive | None = None,
    contrast: str | None = None,
    text: str | os.PathLike[str] | None = None,
    text_missing: Missing = "error",
    rows: RowSelection | None = None,
    mean: Literal["none", "dataset"] | float = "none",
    allow_unfinished: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> PublishedWeights:
    """Open a published output; iterate over the result to read rows.

    Args:
        path: the output folder, or a folder or file inside it; local, or any URL that fsspec opens.
        method: derives the weights from the raw scores; None for the weights that the run stored.
        contrast: the contrast whose scores the method reads, where the run has several; None for its first.
        text: the output of a text reference, which scored the same dataset without images: see
            :mod:`scorer.training.text_reference`. The method ``prior``, or a function, then reads its probabilities.
        text_missing: what becomes of a row that the text reference did not score: ``error`` raises, ``nan`` gives it
            NaN.
        rows: drops the rows whose text the image helps least; None drops none.
        mean: ``dataset`` divides the weights by their mean over all tokens of the run's rows with an image that are not
            dropped, whatever part of the run is read. A run has recorded that of the weights that it stored; for a
            method, a contrast, a text reference or a selection of rows, all its rows are read for it here, once. A
            number is divided by as it is: ``mean_weight`` of an earlier reading spares the next ones that pass.
        allow_unfinished: without ``_SUCCESS``, read what is published so far, or a single file taken out of its
            output. Rows of shards that are not published yet are simply absent.
        storage_options: passed to fsspec (credentials, endpoint), for both outputs.

    Raises:
        TableError: there is no output at ``path`` or ``text``, it is unfinished, ``text`` is not that of a text
            reference; the method or the selection of rows needs the dataset's gaps and the output does not have them;
            or the dataset's mean weight is not known or 0.
        ConfigError: the method is unknown, a contrast or a text reference is given without a method that reads it,
            ``mean`` is invalid, or the URL cannot be opened.
    """
    check_contrast(contrast, method)
    if isinstance(mean, str):
        check_mean(mean, ("none", "dataset"))
    elif not 0 < mean < math.inf:
        raise ConfigError(f"mean is {mean!r}; a mean to divide by must be finite and above 0")
    derive = as_function(method)
    options = dict(storage_options or {})
    reference = None
    if text is not None:
        _check_reads_text(text, derive)
        found_text = read_weights(text, allow_unfinished=allow_unfinished, storage_options=options)
        reference = TextReference(found_text, text_missing)
    fs, plain = open_url(os.fspath(path), "weights", **options)
    plain = plain.rstrip("/")
    if not fs.exists(plain):
        raise TableError(f"there is nothing at {path}; give the output of a scoring run")
    found = _finished_run(fs, plain)
    if found is None and not allow_unfinished:
        raise TableError(
            f"{path} does not belong to a finished run: no {SUCCESS} that names it was found there or above; let the "
            "run finish, or read what is published so far with allow_unfinished=True (--allow-unfinished for export)"
        )
    root, shards, summary = found or _unfinished_run(fs, plain)
    if not shards:
        raise TableError(f"{path} holds no published shard; give the output of a scoring run")
    derive = _with_gaps(derive, summary, contrast, os.fspath(path))
    local = "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)
    url = root if local else fs.unstrip_protocol(root)
    min_gap = None if rows is None else _min_gap(rows, summary, contrast, os.fspath(path))
    published = PublishedWeights(url, shards, summary, derive, contrast, options, reference, min_gap)
    return published if mean == "none" else replace(published, mean_weight=_mean_weight(published, mean))


def _min_gap(rows: RowSelection, summary: Mapping[str, Any], contrast: str | None, path: str) -> float:
    """Return the smallest mean gap of a kept row, in nats. Raises TableError if the dataset's gaps do not give it."""
    try:
        return rows.threshold(lambda: _recorded_gaps(summary, contrast, path))
    except TableError as error:
        raise TableError(
            f"the share of rows to keep takes its threshold from the gaps of the whole dataset, but {error}; or give "
            "the smallest mean gap of a row instead"
        ) from error


def _mean_weight(published: PublishedWeights, mean: str | float) -> float:
    """Return what weights are divided by: the number itself, or the mean over the run. Raises TableError."""
    if not isinstance(mean, str):
        return float(mean)
    if not published.summary:
        raise TableError(
            f"the run of {published.root} is not finished, so the mean weight of its dataset is not known: let it "
            "finish, or give the mean as a number"
        )
    whole = replace(published, shards=tuple(shard["name"] for shard in published.summary["shards"]))
    found = _recorded_total(whole) or whole.total()
    if not found.mean > 0:
        why = "are none, as no row with an image is left"
        if found.tokens:
            why = "are all 0" if not found.sum else f"have the mean {found.mean:.6g}, which would turn their signs"
        raise TableError(
            f"{whole.description}: the weights of the dataset {why}, so they have no mean to be divided by: choose "
            "another method or threshold, or leave the mean out"
        )
    return found.mean


def _recorded_total(published: PublishedWeights) -> WeightTotal | None:
    """Return the total that the run recorded, if it is that of the weights that are read; else None."""
    recorded = published.summary.get("weights")
    if recorded is None or published.min_gap is not None or published.text is not None:
        return None
    if published.contrast not in (None, published.summary.get("contrast")):
        return None
    if published.derive is not None and not _is_stored(published.derive, published.summary):
        return None
    try:
        return WeightTotal.from_dict(recorded)
    except ValueError as error:
        raise TableError(
            f"{published.root}/{SUCCESS} is damaged ({error}): delete it and run the same scoring command again"
        ) from error


def _is_stored(derive: DeriveFunction, summary: Mapping[str, Any]) -> bool:
    """Whether the run stored the weights of this method."""
    try:
        return derive == Method.from_dict(summary.get("method", {}))
    except ConfigError:  # a method of another release
        return False


def _with_gaps(
    derive: DeriveFunction | None, summary: Mapping[str, Any], contrast: str | None, path: str
) -> DeriveFunction | None:
    """Give a method what it takes from the gaps of the whole dataset. Raises TableError if the run has none."""
    if not isinstance(derive, Method) or not derive.needs_gaps:
        return derive
    try:
        return derive.with_gaps(_recorded_gaps(summary, contrast, path))
    except (TableError, ValueError) as error:
        raise TableError(
            f"{derive.missing_gaps}, but {error}; or set {derive.record.of_dataset[0]}, or choose another method"
        ) from error


def _recorded_gaps(summary: Mapping[str, Any], contrast: str | None, path: str) -> DatasetGaps:
    """Return the gaps that a run recorded. Raises TableError."""
    if not summary:
        raise TableError(f"the run of {path} is not finished, and its gaps are recorded when it is: let it finish")
    recorded = summary.get("gaps")
    if not isinstance(recorded, Mapping):
        raise TableError(f"an earlier release published {path} without its gaps: score the dataset again")
    wanted = contrast or str(summary.get("contrast"))
    if wanted not in recorded:
        known = ", ".join(recorded) or "none, as a model without images has none"
        raise TableError(f"{path} has no gaps of the contrast {wanted!r}; it has {known}: choose one of them")
    try:
        gaps = DatasetGaps.from_dict(recorded[wanted])
    except ValueError as error:
        raise TableError(
            f"the gaps in {path}/{SUCCESS} are damaged ({error}): delete it and run the same scoring command again"
        ) from error
    if not gaps.rows.total:
        raise TableError(f"{path} has no scored row with an image, and so no gaps: score rows with images")
    return gaps


def _check_reads_text(text: str | os.PathLike[str], derive: DeriveFunction | None) -> None:
    """Refuse a text reference that would change nothing. Raises ConfigError."""
    if derive is None or (isinstance(derive, Method) and not derive.record.text_reference):
        readers = ", ".join(name for name, record in METHODS.items() if record.text_reference)
        given = "no method" if derive is None else f"the method {getattr(derive, 'name', derive)!r}"
        raise ConfigError(
            f"the text reference {os.fspath(text)!r} is given with {given}, which does not read one: name a method "
            f"that does ({readers}), or leave it out"
        )


Run = tuple[str, tuple[str, ...], Mapping[str, Any]]


def _finished_run(fs: Any, path: str) -> Run | None:
    """Return the nearest folder at or above ``path`` whose ``_SUCCESS`` names files at or below ``path``."""
    folder, inside = path, ""
    while folder:
        summary = _summary(fs, f"{folder}/{SUCCESS}")
        if summary is not None:
            names = tuple(shard["name"] for shard in summary["shards"])
            below = tuple(name for name in names if not inside or f"{name}/".startswith(f"{inside}/"))
            if below or not inside:
                return folder, below, summary
        folder, _, last = folder.rpartition("/")
        inside = f"{last}/{inside}".rstrip("/")
    return None


def _summary(fs: Any, path: str) -> Mapping[str, Any] | None:
    """Return the summary of a run; None if the file is absent, truncated, or written by another program."""
    try:
        return parse_summary(fs.cat_file(path))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return None


def _unfinished_run(fs: Any, path: str) -> Run:
    """Return every published file: Parquet, with no part of its path starting with an underscore or a dot."""
    if fs.isfile(path):
        folder, _, name = path.rpartition("/")
        return folder, (name,), {}
    names = sorted(str(found)[len(path) + 1 :] for found in fs.find(path))
    hidden = ("_", ".")
    published = [
        name
        for name in names
        if name.lower().endswith(".parquet") and not any(p.startswith(hidden) for p in name.split("/"))
    ]
    return path, tuple(published), {}


def _only(columns: Sequence[str]) -> pa.Schema:
    return SCHEMA if columns == "ours" else pa.schema([SCHEMA.field(name) for name in columns])
