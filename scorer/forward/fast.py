"""Score on the fast path: run what rows share once, and pack all branches without padding.

* Clean branch: rows with the same image share it, and the prompt if that is the same.
* Constant contrasts (:attr:`scorer.contrasts.Contrast.constant`) are the same for every row with the same prompt and
  image size, and hidden image tokens are not run at all. So little more than the caption tokens is run.
* Other contrasts depend on the row's own image, so each takes a full pass of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from scorer.contrasts import parse_contrast
from scorer.errors import BatchTooLargeError
from scorer.forward.attention import Backend
from scorer.forward.labels import LABELS_ALONE, LabelScores, Quantities, split_scores, with_pair, without_pair
from scorer.forward.memory import STATES_BYTES, is_out_of_memory
from scorer.forward.model import ForwardRow, ReferenceModel
from scorer.forward.packed import PackedForward
from scorer.forward.packing import Batch, Packer
from scorer.forward.pairs import CONTRAST, Item, Waiting, divergences, split_divergences, states_of
from scorer.forward.segments import KeptSegment, Path, cuts_of
from scorer.forward.self_check import of_each_kind
from scorer.types import Branch, EncodedSample

Scores = LabelScores | Exception
"""A branch's scores, or the error of a row that alone does not fit in memory."""
Look = Callable[[list[EncodedSample]], bool]
_NO_LIMIT: Final = 2**62


class FastPath:
    """Scores rows in packed batches, and keeps contrast prefixes across calls if told to.

    Args:
        model: the reference model; its family must be verified for the fast path.
        contrasts: the contrasts, as :func:`scorer.contrasts.parse_contrast` reads them.
        cache_bytes: memory for contrast prefixes that are kept across calls, in bytes.
        backend: see :class:`PackedForward`.
        bucket: see :class:`PackedForward`.
        quantities: what is computed beside the labels' scores.
    """

    def __init__(
        self,
        model: ReferenceModel,
        contrasts: Sequence[str],
        cache_bytes: int = 0,
        backend: Backend | None = None,
        bucket: int | None = None,
        quantities: Quantities = LABELS_ALONE,
    ) -> None:
        self._model = model
        self._own, self._joint = quantities.own, quantities.joint
        self._constant = [False, *(parse_contrast(one).record.constant for one in contrasts)]  # by branch
        self._cache = KeptSegments(cache_bytes)
        self._forward = PackedForward(model, backend, bucket, quantities.own)

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
        return self._scores(self._kept_batches(rows, budget), keep=True, waiting=self._waiting())

    def score_rows(
        self, rows: Iterable[EncodedSample], budget: int, look: Look | None = None
    ) -> Iterator[tuple[Item, Scores]]:
        """Yield the scores of each branch of each row, as they are computed; they follow from the arguments alone.

        Rows are read as they are needed. Constant contrasts hold no images of their own, so they wait until all rows
        are there, and each prefix is run as seldom as the budget allows. Where branches are compared, they wait until
        the states that wait for them take :data:`STATES_BYTES`.

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
        return self._scores(self._batches(rows, budget, look), keep=False, waiting=self._waiting())

    def score_texts(self, rows: Sequence[EncodedSample], budget: int) -> Iterator[tuple[Item, Scores]]:
        """Yield the scores of text-only rows; see :meth:`score_rows`."""
        for item, scores in self._scores(self._text_batches(rows, budget), keep=False, waiting=None):
            yield item, scores if isinstance(scores, Exception) else without_pair(scores, self._joint)

    def _waiting(self) -> Waiting | None:
        """Return the place where states wait for the other branch of their pair; None if no pair is compared."""
        return Waiting(len(self._constant) - CONTRAST) if self._joint else None

    def _text_batches(self, rows: Sequence[EncodedSample], budget: int) -> Iterator[Batch[Item]]:
        packer: Packer[Item] = Packer(budget)
        for i, row in enumerate(rows):
            packer.add((i, CONTRAST), self._path(packer, row.contrast))
        yield from packer.rest()

    def _kept_batches(self, rows: Iterable[EncodedSample], budget: int) -> Iterator[Batch[Item]]:
        packer: Packer[Item] = Packer(budget)
        states = 0
        for i, row in enumerate(rows):
            for number, branch in enumerate(row.branches):
                path = self._path(packer, branch)
                if self._keeps(number, path):
                    path.root.kept = path.root.kept or self._cache.get(path.root.key)
                packer.add((i, number), path)
            states += self._waiting_bytes(row)
            if states > STATES_BYTES:
                states = 0
                yield from packer.rest()
        yield from packer.rest()

    def _batches(self, rows: Iterable[EncodedSample], budget: int, look: Look | None) -> Iterator[Batch[Item]]:
        clean: Packer[Item] = Packer(budget)
        packers = [clean]  # by branch
        for number, constant in enumerate(self._constant[CONTRAST:], CONTRAST):
            # A further contrast has batches of its own, so that the others' batches and rounding do not depend on it.
            packers.append(clean if number == CONTRAST and not constant else Packer(budget))
        different = list({id(packer): packer for packer in packers}.values())
        unseen: list[EncodedSample] = []
        states = 0

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
            states += self._waiting_bytes(row)
            due = states > STATES_BYTES
            states = 0 if due else states
            for packer in different:
                for batch in packer.rest() if due else packer.full():
                    check()
                    yield batch
        check()
        for packer in different:
            yield from packer.rest()

    def _waiting_bytes(self, row: EncodedSample) -> int:
        """Return the bytes of a row's states that wait for its contrasts, which follow from the row alone."""
        return len(row.clean.label_index) * self._model.state_bytes if self._joint else 0

    def _path(self, packer: Packer[Item], branch: Branch) -> Path:
        row = self._model.prepare(branch)
        if row.pixels and not row.attend[row.ids == self._model.image_token_id].any():
            row = self._model.text_only(row)
        return packer.path(row, cuts_of(row, self._model.image_token_id, self._model.family.whole_prefix))

    def _keeps(self, branch: int, path: Path) -> bool:
        """Whether later calls may need the path's root: a prefix with an image that all contrasts of its kind share."""
        row: ForwardRow = path.row
        return self._constant[branch] and bool(row.pixels) and path.root.stop <= int(row.label_index[0])

    def _scores(
        self, batches: Iterator[Batch[Item]], keep: bool, waiting: Waiting | None
    ) -> Iterator[tuple[Item, Scores]]:
        """Run batches. While a device works on one, the next is read, laid out and started; then the first is read."""
        running: _Running | None = None
        unpaired: dict[Item, LabelScores] = {}
        for batch in batches:
            started = self._start(batch, keep, waiting)
            if running is not None:
                yield from self._read(running, waiting, unpaired)
            running = started
        if running is not None:
            yield from self._read(running, waiting, unpaired)

    def _start(self, batch: Batch[Item], keep: bool, waiting: Waiting | None) -> _Running:
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
        items = [item for item, _ in batch]
        counts = [len(reads) for reads in prepared.layout.reads]
        try:
            result = self._forward.run(prepared, wanted)
            paired: list[Item] = []
            between: Tensor | None = None
            if waiting is not None:
                complete = waiting.meet(items, states_of(result.states, result.scores, counts))
                paired = [item for item, _ in complete]
                if complete:
                    pairs = [pair for _, pair in complete]
                    between = divergences(self._model, pairs, self._joint, result.scores.device)
        except RuntimeError as error:  # torch.OutOfMemoryError and the CPU allocator's error are RuntimeErrors
            if not is_out_of_memory(error):
                raise
            if len(batch) > 1:
                tokens = len(prepared.layout.ids)
                raise BatchTooLargeError(f"a batch of {tokens} tokens ran out of memory", tokens // 2) from error
            return _Running(items, counts, error)
        for key, segment in result.kept.items():
            self._cache.put(key, segment)
        return _Running(items, counts, result.scores, paired, between)

    def _read(
        self, running: _Running, waiting: Waiting | None, unpaired: dict[Item, LabelScores]
    ) -> Iterator[tuple[Item, Scores]]:
        """Yield the scores that are complete once a started batch's are read; this waits for the device.

        Args:
            running: the batch.
            waiting: see :meth:`_waiting`.
            unpaired: scores of contrasts whose clean branch has not been run yet; changed.
        """
        if isinstance(running.scores, RuntimeError):
            yield running.items[0], running.scores
            return
        found = dict(zip(running.items, split_scores(running.scores, running.counts, self._own), strict=True))
        if waiting is None:
            yield from found.items()
            return
        waiting.to_host()
        unpaired |= {item: scores for item, scores in found.items() if item[1] >= CONTRAST}
        yield from ((item, scores) for item, scores in found.items() if item[1] < CONTRAST)
        if running.between is None:
            return
        lengths = [len(unpaired[item].logit) for item in running.paired]
        for item, values in zip(running.paired, split_divergences(running.between, lengths, self._joint), strict=True):
            yield item, with_pair(unpaired.pop(item), values)


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    """A batch that was started.

    Attributes:
        items: its branches.
        counts: their numbers of labels.
        scores: on the device, or the error of the only branch.
        paired: the contrasts that are compared with their clean branch, since both are now there.
        between: their divergences, on the device; None if there are none.
    """

    items: list[Item]
    counts: list[int]
    scores: Tensor | RuntimeError
    paired: Sequence[Item] = ()
    between: Tensor | None = None


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
