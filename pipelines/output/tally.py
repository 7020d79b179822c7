"""Count what became of rows: tallies add up from units to shards and the run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeVar

from scorer.results import Result, TokenScores
from scorer.types import Usage

MAX_EXAMPLES: Final = 10
_MAX_MESSAGE: Final = 300

Span = tuple[float, float]
N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Example:
    """One failed row."""

    shard: str
    row_index: int
    sample_id: str
    message: str


@dataclass(frozen=True, slots=True)
class FailureTally:
    """Rows that failed with one code: how many, and the first few in row order."""

    count: int = 0
    examples: tuple[Example, ...] = ()

    def __add__(self, other: FailureTally) -> FailureTally:
        return FailureTally(self.count + other.count, (self.examples + other.examples)[:MAX_EXAMPLES])


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts for a range of rows.

    Attributes:
        rows: rows in; always ``ok + text_only + failed``.
        ok: rows that were scored.
        tokens: scored tokens, of rows ok.
        failures: failed rows, by failure code.
        paths: scored rows, by how they were scored: ``fast``; ``plain`` if the model has no fast path or failed the
            self-check (:attr:`scorer.engine.Scorer.path`); ``isolated`` if in a process of its own, after their workers
            had died.
        usage: tokens that the model ran, without and with padding.
        sessions: for every process that scored some of the rows, when it began to score its first unit and committed
            its last one (seconds since the epoch). The sum of these spans is a run's working time without pauses.
        stages: working seconds by stage, over all workers: ``read``, ``encode``, ``score`` and, for units committed by
            this process, ``write``.
        text_only: rows without an image, which keep their tokens with weights of 1.
        cut: rows whose unit did not fit in memory, by the smaller budget in tokens that its batches were cut to.
    """

    rows: int = 0
    ok: int = 0
    tokens: int = 0
    failures: Mapping[str, FailureTally] = field(default_factory=dict)
    paths: Mapping[str, int] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    sessions: Mapping[str, Span] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict, compare=False)
    text_only: int = 0
    cut: Mapping[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return self.rows - self.ok - self.text_only

    @property
    def seconds(self) -> float:
        """Working time, in seconds."""
        return sum(end - start for start, end in self.sessions.values())

    def __add__(self, other: Tally) -> Tally:
        codes = sorted({*self.failures, *other.failures})
        none = FailureTally()
        sessions = dict(self.sessions)
        for name, (start, end) in other.sessions.items():
            first, last = sessions.get(name, (start, end))
            sessions[name] = (min(first, start), max(last, end))
        return Tally(
            self.rows + other.rows,
            self.ok + other.ok,
            self.tokens + other.tokens,
            {code: self.failures.get(code, none) + other.failures.get(code, none) for code in codes},
            _sum(self.paths, other.paths),
            self.usage + other.usage,
            sessions,
            _sum(self.stages, other.stages),
            self.text_only + other.text_only,
            _sum(self.cut, other.cut),
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tally:
        """Return the tally that :meth:`to_dict` turned into plain data. Raise ValueError if it is damaged."""
        data = {"stages": {}, "text_only": 0, "cut": {}, **data}  # older outputs have none of these
        try:
            failures = {
                code: FailureTally(_whole(value["count"]), tuple(Example(**example) for example in value["examples"]))
                for code, value in data["failures"].items()
            }
            return cls(
                rows=_whole(data["rows"]),
                ok=_whole(data["ok"]),
                tokens=_whole(data["tokens"]),
                failures=failures,
                paths={name: _whole(count) for name, count in data["paths"].items()},
                usage=Usage(**{name: _whole(count) for name, count in data["usage"].items()}),
                sessions={name: (_seconds(start), _seconds(end)) for name, (start, end) in data["sessions"].items()},
                stages={name: _seconds(seconds) for name, seconds in data["stages"].items()},
                text_only=_whole(data["text_only"]),
                cut={tokens: _whole(rows) for tokens, rows in data["cut"].items()},
            )
        except KeyError as error:
            raise ValueError(f"it has no {error.args[0]}") from error
        except (TypeError, AttributeError) as error:
            raise ValueError(f"its counts cannot be read ({error})") from error


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"one of its counts is {value!r:.40}, not a whole number")
    return value


def _seconds(value: Any) -> float:
    """Return a time. NaN, infinity and what is larger than any float would spread to the summary, and are no JSON."""
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"one of its times is {value!r:.40}, not a number of seconds")
    return float(value)


def _sum(ours: Mapping[str, N], theirs: Mapping[str, N]) -> dict[str, N]:
    """Add by key; keys are sorted, so equal sums are written as equal bytes."""
    return {key: ours.get(key, 0) + theirs.get(key, 0) for key in sorted({*ours, *theirs})}


def tally_results(
    results: Sequence[Result],
    shard: str,
    first_row: int,
    *,
    path: str,
    usage: Usage,
    session: str,
    span: Span,
    stages: Mapping[str, float],
    cut: int | None = None,
) -> Tally:
    """Count one unit's results."""
    failures: dict[str, FailureTally] = {}
    ok = text_only = tokens = 0
    for row_index, result in enumerate(results, first_row):
        if isinstance(result, TokenScores):
            if result.text_only:
                text_only += 1
            else:
                ok += 1
                tokens += len(result.token_ids)
            continue
        example = Example(shard, row_index, result.sample_id, result.message[:_MAX_MESSAGE])
        code = result.code.value
        failures[code] = failures.get(code, FailureTally()) + FailureTally(1, (example,))
    return Tally(
        rows=len(results),
        ok=ok,
        tokens=tokens,
        failures=dict(sorted(failures.items())),
        paths={path: ok},
        usage=usage,
        sessions={session: span},
        stages=stages,
        text_only=text_only,
        cut={} if cut is None else {str(cut): len(results)},
    )


def total(tallies: Iterable[Tally]) -> Tally:
    """Add tallies in the given order, which decides whose examples are kept."""
    result = Tally()
    for tally in tallies:
        result = result + tally
    return result
