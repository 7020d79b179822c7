"""Score encoded rows as they arrive, and find the rows on which the scorer raises."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator

from pipelines.run.captions import EncodedRow, TakenApart
from pipelines.run.engine import RowScorer
from pipelines.run.trials import Trials
from scorer.errors import BatchTooLargeError, FailureCode
from scorer.results import Failure, Result
from scorer.types import EncodedSample

log = logging.getLogger(__name__)


class Supply:
    """Encoded rows on their way to the scorer: whether these or the scorer raise, and how long they are waited for.

    Args:
        rows: yields the same rows, in order, each time that it is iterated over.

    Attributes:
        began: when the first row arrived, in seconds since the epoch; None before.
        waited: seconds that the scorer waited for rows.
        sample_ids: ids of the rows of the last iteration.
    """

    def __init__(self, rows: Iterable[EncodedRow]) -> None:
        self._rows = rows
        self._error: BaseException | None = None
        self.began: float | None = None
        self.waited = 0.0
        self.sample_ids: list[str] = []

    def __iter__(self) -> Iterator[EncodedRow]:
        rows = iter(self._rows)
        self.sample_ids = []
        while True:
            asked = time.monotonic()
            try:
                row = next(rows)
            except StopIteration:
                return
            except BaseException as error:
                self._error = error
                raise
            finally:
                self.waited += time.monotonic() - asked
            if self.began is None:
                self.began = time.time()
            self.sample_ids.append(row.sample_id)
            yield row
            del row  # frees its pixels while the next one is waited for

    def check(self) -> None:
        """Raise what the rows raised, if they did."""
        if self._error is not None:
            raise self._error


def score_rows(rows: Iterable[EncodedRow], scorer: RowScorer, max_batch_tokens: int) -> list[Result]:
    """Score rows together; if that raises, find the rows that raise alone and score the others together again.

    Args:
        rows: is iterated over again for each attempt.

    Raises:
        BatchTooLargeError: a batch did not fit in memory, or raised although none of its rows raises alone.
        RunError: the scorer raised on each of several rows: then the model is at fault, not the rows.
        Exception: what the rows raise.
    """
    supply = rows if isinstance(rows, Supply) else Supply(rows)
    together = TakenApart(supply)
    try:
        results = scorer.score_batches(iter(together), max_batch_tokens)
    except BatchTooLargeError:
        raise
    except Exception:
        supply.check()
        log.exception("scoring rows together raised at the row %d; trying one by one", len(supply.sample_ids))
    else:
        return together.join(results)
    apart, alone = _score_apart(supply, scorer, max_batch_tokens)
    if max_batch_tokens == 1:  # no row shares a batch with another
        return apart.join(alone)
    bad = {turn: result for turn, result in enumerate(alone) if isinstance(result, Failure)}
    together = TakenApart(supply)
    try:
        results = scorer.score_batches((bad.get(i, turn) for i, turn in enumerate(together)), max_batch_tokens)
    except BatchTooLargeError:
        raise
    except Exception as error:
        supply.check()
        problem = f"a batch raised {type(error).__name__}: {error}, although none of its rows raises alone"
        raise BatchTooLargeError(problem, 1) from error
    return together.join(results)


def _score_apart(
    rows: Iterable[EncodedRow], scorer: RowScorer, max_batch_tokens: int
) -> tuple[TakenApart, list[Result]]:
    """Score each turn in a call of its own. Return one result per turn, and what joins them.

    Raises:
        RunError: the scorer raised on each of several rows.
    """
    apart = TakenApart(rows)
    results: list[Result] = []
    tried: dict[int, tuple[str, list[Exception | None]]] = {}  # id and turns by row: a row raised if all its turns did
    for turn in apart:
        raised: Exception | None = None
        try:
            results += scorer.score_batches([turn], max_batch_tokens)
        except Exception as error:
            log.exception("scoring row %s raised", turn.sample_id)
            raised = error
            message = f"the model raised {type(error).__name__}: {error}"
            results.append(Failure(turn.sample_id, FailureCode.SCORING_FAILED, message))
        if isinstance(turn, EncodedSample):
            tried.setdefault(len(apart.sample_ids), (turn.sample_id, []))[1].append(raised)
    trials = Trials()
    for sample_id, errors in tried.values():
        trials += Trials.of(sample_id, None if None in errors else errors[0])
    trials.check("the model")
    return apart, results
