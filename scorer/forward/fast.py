"""Score on the fast path: run what rows share once, and pack all branches without padding.

* Clean branch: rows with the same image share it, and the prompt if that is the same.
* Constant contrasts (:attr:`scorer.contrasts.Contrast.constant`) are the same for every row with the same prompt and
  image size, and hidden image tokens are not run at all. So little more than the caption tokens is run.
* Other contrasts depend on the row's own image, so each takes a full pass of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from torch import Tensor

from scorer.contrasts import parse_contrast
from scorer.errors import BatchTooLargeError
from scorer.forward.attention import Backend
from scorer.forward.labels import LabelScores, split_scores
from scorer.forward.memory import is_out_of_memory
from scorer.forward.model import ForwardRow, ReferenceModel
from scorer.forward.packed import PackedForward
from scorer.forward.packing import Batch, Packer
from scorer.forward.segments import KeptSegment, Path, cuts_of
from scorer.forward.self_check import of_each_kind
from scorer.types import Branch, EncodedSample

Scores = LabelScores | Exception
"""A branch's scores, or the error of a row that alone does not fit in memory."""
Look = Callable[[list[EncodedSample]], bool]
Item = tuple[int, int]
"""A row's number, and the number of one of its branches (:attr:`scorer.types.EncodedSample.branches`)."""
CONTRAST: Final = 1
"""The number of the first contrast's branch: the clean one comes before it, those of further contrasts after it."""

_NO_LIMIT: Final = 2**62


class FastPath:
    """Scores rows in packed batches, and keeps contrast prefixes across calls if told to.

    Args:
        model: the reference model; its family must be verified for the fast path.
        contrasts: the contrasts, as :func:`scorer.contrasts.parse_contrast` reads them.
        cache_bytes: memory for contrast prefixes that are kept across calls, in bytes.
        backend: see :class:`PackedForward`.
        bucket: see :class:`PackedForward`.
    """

    def __init__(
        self,
        model: ReferenceModel,
        contrasts: Sequence[str],
        cache_bytes: int = 0,
        backend: Backend | None = None,
        bucket: int | None = None,
    ) -> None:
        self._model = model
        self._constant = [False, *(parse_contrast(one).record.constant for one in contrasts)]  # by branch
        self._cache = KeptSegments(cache_bytes)
        self._forward = PackedForward(model, backend, bucket)

    def score(self, samples: Sequence[EncodedSample], kept: bool = True) -> list[tuple[LabelScores, ...]]:
        """Return the scores of each sample's branches, without a budget.

        Args:
            samples: the rows.
            kept: whether to score as :meth:`score_kept` does; otherwise, as :meth:`score_rows`.

        Raises:
            BatchTooLargeError, RuntimeError: they do not fit in memory.
        """
        score = self.score_kept if kept else self.score_rows
        return _by_row(samples, score(samples, _NO_LIMIT))

    def score_kept(self, rows: Iterable[EncodedSample], budget: int) -> Iterator[tuple[Item, Scores]]:
        """Yield the scores of each branch of each row; the branches share batches, which use what is kept.

        The scores depend, within rounding, on what is kept. The arguments and errors are those of :meth:`score_rows`.
        """
        return self._scores(self._kept_batches(rows, budget), keep=True)

    def score_rows(
        self, rows: Iterable[EncodedSample], budget: int, look: Look | None = None
    ) -> Iterator[tuple[Item, Scores]]:
        """Yield the scores of each branch of each row, as they are computed; they follow from the arguments alone.

        Rows are read as they are needed. Constant contrasts hold no images of their own, so they wait until all rows
        are there, and each prefix is run as seldom as the budget allows.

        Args:
            rows: the rows.
            budget: the most tokens of a batch; a row that alone has more is a batch by itself.
            look: called once, before anything is scored, with a few rows of each kind among those that wait; returns
                whether the fast path's scores of them are right.

        Yields:
            ((row number, branch), scores); instead of scores, the error if the row alone does not fit in memory.

        Raises:
            BatchTooLargeError: a batch of several rows does not fit in memory.
            FastPathDiffersError: ``look`` returned False.
        """
        return self._scores(self._batches(rows, budget, look), keep=False)

    def score_texts(self, rows: Sequence[EncodedSample], budget: int) -> Iterator[tuple[Item, Scores]]:
        """Yield the scores of text-only rows; see :meth:`score_rows`."""
        return self._scores(self._text_batches(rows, budget), keep=False)

    def _text_batches(self, rows: Sequence[EncodedSample], budget: int) -> Iterator[Batch[Item]]:
        packer: Packer[Item] = Packer(budget)
        for i, row in enumerate(rows):
            packer.add((i, CONTRAST), self._path(packer, row.contrast))
        yield from packer.rest()

    def _kept_batches(self, rows: Iterable[EncodedSample], budget: int) -> Iterator[Batch[Item]]:
        packer: Packer[Item] = Packer(budget)
        for i, row in enumerate(rows):
            for number, branch in enumerate(row.branches):
                path = self._path(packer, branch)
                if self._keeps(number, path):
                    path.root.kept = path.root.kept or self._cache.get(path.root.key)
                packer.add((i, number), path)
        yield from packer.rest()

    def _batches(self, rows: Iterable[EncodedSample], budget: int, look: Look | None) -> Iterator[Batch[Item]]:
        clean: Packer[Item] = Packer(budget)
        packers = [clean]  # by branch
        for number, constant in enumerate(self._constant[CONTRAST:], CONTRAST):
            # A further contrast has batches of its own, so that the others' batches and rounding do not depend on it.
            packers.append(clean if number == CONTRAST and not constant else Packer(budget))
        different = list({id(packer): packer for packer in packers}.values())
        unseen: list[EncodedSample] = []

        def check() -> None:
            nonlocal look
            if look is not None and unseen and not look([r for few in of_each_kind(unseen).values() for r in few]):
                raise FastPathDiffersError(unseen)
            look = None
            unseen.clear()

        for i, row in enumerate(rows):
            for number, (packer, branch) in enumerate(zip(packers, row.branches, strict=True)):
                packer.add((i, number), self._path(packer, branch))
            if look is not None:
                unseen.append(row)
            for packer in different:
                for batch in packer.full():
                    check()
                    yield batch
        check()
        for packer in different:
            yield from packer.rest()

    def _path(self, packer: Packer[Item], branch: Branch) -> Path:
        row = self._model.prepare(branch)
        if row.pixels and not row.attend[row.ids == self._model.image_token_id].any():
            row = self._model.text_only(row)
        return packer.path(row, cuts_of(row, self._model.image_token_id, self._model.family.whole_prefix))

    def _keeps(self, branch: int, path: Path) -> bool:
        """Whether later calls may need the path's root: a prefix with an image that all contrasts of its kind share."""
        row: ForwardRow = path.row
        return self._constant[branch] and bool(row.pixels) and path.root.stop <= int(row.label_index[0])

    def _scores(self, batches: Iterator[Batch[Item]], keep: bool) -> Iterator[tuple[Item, Scores]]:
        """Run batches. While a device works on one, the next is read, laid out and started; then the first is read."""
        running: _Running | None = None
        for batch in batches:
            started = self._start(batch, keep)
            if running is not None:
                yield from _read(running)
            running = started
        if running is not None:
            yield from _read(running)

    def _start(self, batch: Batch[Item], keep: bool) -> _Running:
        """Start a batch without waiting for it. If a row alone does not fit in memory, its error is the batch's result.

        Raises:
            BatchTooLargeError: a batch of several rows does not fit.
        """
        wanted = {
            path.root.key
            for (_, branch), path in batch
            if keep and self._keeps(branch, path) and path.root.kept is None and self._cache.limit
        }
        prepared = self._forward.prepare([path for _, path in batch])
        try:
            scores, kept = self._forward.run(prepared, wanted)
        except RuntimeError as error:  # torch.OutOfMemoryError and the CPU allocator's error are RuntimeErrors
            if not is_out_of_memory(error):
                raise
            if len(batch) > 1:
                tokens = len(prepared.layout.ids)
                raise BatchTooLargeError(f"a batch of {tokens} tokens ran out of memory", tokens // 2) from error
            return [batch[0][0]], [], error
        for key, segment in kept.items():
            self._cache.put(key, segment)
        return [item for item, _ in batch], [len(reads) for reads in prepared.layout.reads], scores


_Running = tuple[list[Item], list[int], Tensor | RuntimeError]
"""A batch's branches, their numbers of labels, and their scores on the device, or the error of a lone branch."""


def _read(running: _Running) -> Iterator[tuple[Item, Scores]]:
    """Yield a started batch's scores; this waits for the device."""
    items, counts, scores = running
    if isinstance(scores, RuntimeError):
        yield items[0], scores
    else:
        yield from zip(items, split_scores(scores, counts), strict=True)


class FastPathDiffersError(Exception):
    """The fast path failed its check; ``rows`` were read and are not scored."""

    def __init__(self, rows: Sequence[EncodedSample]) -> None:
        super().__init__(f"the fast path failed its check before {len(rows)} rows")
        self.rows = rows


def _by_row(rows: Sequence[EncodedSample], found: Iterable[tuple[Item, Scores]]) -> list[tuple[LabelScores, ...]]:
    scores = {}
    for item, one in found:
        if isinstance(one, Exception):
            raise one
        scores[item] = one
    return [tuple(scores[i, branch] for branch in range(len(row.branches))) for i, row in enumerate(rows)]


class KeptSegments:
    """Kept roots by key; above a limit in bytes, the least recently used ones are dropped."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._kept: OrderedDict[bytes, KeptSegment] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    def get(self, key: bytes) -> KeptSegment | None:
        """Return what is kept under ``key`` and mark it as used; None if there is nothing."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: bytes, segment: KeptSegment) -> None:
        """Keep a root, unless it is larger than the limit."""
        if segment.nbytes > self.limit or key in self._kept:
            return
        self._kept[key] = segment
        self.nbytes += segment.nbytes
        while self.nbytes > self.limit:
            _, dropped = self._kept.popitem(last=False)
            self.nbytes -= dropped.nbytes
