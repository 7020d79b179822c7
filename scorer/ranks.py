"""Run one model in several processes (ranks) that share its weights (tensor parallelism): this one leads the others.

    leader (rank 0)      reads rows, returns results      ── the model's own reductions ──┐
      └── pipe: a request, then row after row ──► follower (rank 1 …), its results dropped ┘

Every rank runs the same code on the same rows. What a batch holds, when it is run and whether the self-check passes
follow from the rows alone, so the ranks meet in every reduction without further messages. After each request they
report how it ended; if they differ, none is used again.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from scorer.config import ScorerConfig
from scorer.errors import ConfigError, ModelError
from scorer.results import Failure, Result
from scorer.types import EncodedSample

log = logging.getLogger(__name__)

MODULE: Final = "scorer.rank_process"
"""What a follower runs."""
TIMEOUT: Final = timedelta(minutes=10)
"""How long a rank waits for another in a reduction before it ends: the other is dead or does something else."""
_END_SECONDS: Final = 10.0
_HOST: Final = "127.0.0.1"

Row = EncodedSample | Failure


@dataclass(frozen=True, slots=True)
class Start:
    """What a follower needs to know.

    Attributes:
        path: the checkpoint's directory.
        config: the leader's.
        rank: the follower's number, from 1.
        port: of the leader's store, through which the ranks find each other.
        threads: torch's number of CPU threads, the same in every rank, so that all round alike.
    """

    path: Path
    config: ScorerConfig
    rank: int
    port: int
    threads: int


@dataclass(frozen=True, slots=True)
class Request:
    """A method of :class:`scorer.engine.Scorer` that takes rows: ``score_encoded`` or ``score_batches``.

    Attributes:
        contrasts: those of the scorer that was asked, the first one first.
        arguments: what follows the rows.
    """

    method: str
    contrasts: tuple[str, ...]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request, or loading the model, ended in one rank.

    Attributes:
        error: the error's class; empty if there was none.
        path: see :attr:`scorer.engine.Scorer.path`.
        message: the error's text; it is for people and is not compared.
    """

    error: str
    path: str
    message: str = ""

    def agrees(self, other: Outcome) -> bool:
        """Whether two ranks ended alike."""
        return (self.error, self.path) == (other.error, other.path)


class EndOfRows:
    """Sent after the last row."""


class RowsFailed:
    """Sent when the leader's rows raised: the request ends in all ranks."""


class RowsFailedError(Exception):
    """Raised in a follower when the leader's rows raised."""


class Ranks:
    """The leader's hold on its followers. They end with this object, and with this process."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], connections: list[Connection]) -> None:
        self._processes, self._connections = processes, connections
        self._end = weakref.finalize(self, _end, processes, connections)

    @classmethod
    def start(cls, path: Path, config: ScorerConfig, device: str) -> Ranks:
        """Start ``config.tensor_parallel`` − 1 followers, and join them in a process group.

        Each loads the model while this process does; call :meth:`wait_until_loaded` then.

        Args:
            path: the checkpoint's directory.
            config: the scorer's options.
            device: ``cpu`` or ``cuda``.

        Raises:
            ModelError: there are too few devices, this process is already in a process group, or a follower died.
        """
        import torch
        import torch.distributed as dist

        count = config.tensor_parallel
        _check_devices(count, device)
        if dist.is_initialized() or os.environ.get("LOCAL_RANK", "0") != "0":
            raise ModelError(
                f"tensor_parallel is {count}, but this process already belongs to a torch.distributed group (of "
                "another scorer, or of torchrun); score in a separate process, or with tensor_parallel=1"
            )
        address: dict[str, Any] = {"host_name": _HOST, "port": 0, "world_size": count, "timeout": TIMEOUT}
        store = dist.TCPStore(**address, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]  # as below
        processes: list[subprocess.Popen[bytes]] = []
        connections: list[Connection] = []
        ranks = cls(processes, connections)
        try:
            for rank in range(1, count):
                process, connection = _start()
                processes.append(process)
                connections.append(connection)
                ranks._send_to(connection, Start(path, config, rank, store.port, torch.get_num_threads()))
            for connection in connections:
                ranks._receive(connection)  # it is about to join: joining would wait for a dead one
            join(store, 0, count, device)
        except BaseException:
            ranks.close()
            raise
        return ranks

    def wait_until_loaded(self) -> None:
        """Wait until every follower has loaded the model. Raise ModelError if one could not."""
        for rank, connection in enumerate(self._connections, 1):
            outcome: Outcome = self._receive(connection)
            if outcome.error:
                self.close()
                raise ModelError(
                    f"rank {rank} could not load the model: {outcome.error}: {outcome.message}; its standard error has "
                    "the traceback; check that its share of the model fits its device"
                )

    def lead(
        self,
        request: Request,
        rows: Iterable[Row],
        score: Callable[[Iterable[Row]], list[Result]],
        path: Callable[[], str],
    ) -> list[Result]:
        """Return ``score(rows)`` while the followers do the same; every row is sent when it is asked for.

        Args:
            request: what the followers run.
            rows: is iterated over once, in order.
            score: what this process runs.
            path: the scorer's path, once it has scored.

        Raises:
            ModelError: a follower died, or ended differently from this process. The model is unusable from then on.
            Exception: what ``rows`` or ``score`` raised.
        """
        if not self._end.alive:
            raise ModelError(
                "the processes that share the model's weights ended after an earlier error; load the scorer again"
            )
        self._send(request)
        reading = _Reading(rows)
        try:
            results = score(self._sent(reading))
        except BaseException as error:
            if not isinstance(error, Exception) and not reading.failed:
                self.close()  # interrupted anywhere: nobody knows what the followers wait for
                raise
            self._compare(Outcome(RowsFailedError.__name__ if reading.failed else type(error).__name__, path()), error)
            raise
        self._compare(Outcome("", path()), None)
        return results

    def close(self) -> None:
        """End the followers and leave the process group."""
        self._end()

    def _sent(self, reading: _Reading) -> Iterator[Row]:
        while True:
            try:
                row = reading.next()
            except BaseException:
                self._send(RowsFailed())
                raise
            if row is None:
                self._send(EndOfRows())
                return
            self._send(row)
            yield row
            del row  # frees its pixels while the next one is waited for

    def _compare(self, own: Outcome, error: BaseException | None) -> None:
        others = [self._receive(connection) for connection in self._connections]
        for rank, other in enumerate(others, 1):
            if not own.agrees(other):
                self.close()
                raise ModelError(
                    f"rank {rank} of the model ended with {_told(other)}, but rank 0 with {_told(own)}; no row was "
                    "scored; check that all devices have the same free memory, and load the scorer again"
                ) from error

    def _send(self, message: object) -> None:
        for connection in self._connections:
            self._send_to(connection, message)

    def _send_to(self, connection: Connection, message: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # the follower is dead, which receiving reports
            connection.send(message)

    def _receive(self, connection: Connection) -> Any:
        try:
            return connection.recv()
        except (EOFError, ConnectionResetError):
            rank = self._connections.index(connection) + 1
            status = self._processes[rank - 1].wait()
            self.close()
            raise ModelError(
                f"rank {rank} of the {len(self._connections) + 1} that share the model's weights ended with status "
                f"{status}; its standard error says more; check that its share of the model fits its device, and load "
                "the scorer again"
            ) from None


class _Reading:
    """Rows, and whether reading one raised."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = iter(rows)
        self.failed = False

    def next(self) -> Row | None:
        """Return the next row; None after the last."""
        try:
            return next(self._rows, None)
        except BaseException:
            self.failed = True
            raise


def join(store: Any, rank: int, count: int, device: str) -> None:
    """Make this process the given rank of the group that shares a model's weights."""
    import torch
    import torch.distributed as dist

    own = torch.device("cuda", rank) if device == "cuda" else None
    if own is not None:
        torch.cuda.set_device(own)
    backend = "gloo" if own is None else "nccl"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT, device_id=own)


def joined_store(port: int, count: int) -> Any:
    """Return a follower's connection to the leader's store."""
    import torch.distributed as dist

    # torch exports the class without saying so in its types.
    return dist.TCPStore(_HOST, port, count, is_master=False, timeout=TIMEOUT)  # type: ignore[attr-defined]


def _check_devices(count: int, device: str) -> None:
    import torch

    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cuda" and seen < count:
        raise ModelError(
            f"tensor_parallel is {count}, but the number of GPUs that torch sees here is {seen}; lower it, or reserve "
            "more GPUs (--gpus-per-actor, CUDA_VISIBLE_DEVICES)"
        )
    if device == "cpu" and seen:
        raise ModelError(
            f"tensor_parallel is {count} on device 'cpu', but the number of GPUs that torch sees is {seen}, and "
            "transformers would use them; hide them (CUDA_VISIBLE_DEVICES=) or use --device cuda"
        )


def _start() -> tuple[subprocess.Popen[bytes], Connection]:
    """Start a follower."""
    ours, theirs = Pipe()
    # It must be able to import all that this process can, and nothing from the working directory (-P).
    paths = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *filter(None, sys.path)])
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths},
        )
    return process, ours


def _end(processes: list[subprocess.Popen[bytes]], connections: list[Connection]) -> None:
    """End followers: one that waits for a request ends when its pipe closes, one that computes is killed."""
    import torch.distributed as dist

    for connection in connections:
        connection.close()
    for process in processes:
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if dist.is_initialized():
        dist.destroy_process_group()


def _told(outcome: Outcome) -> str:
    if outcome.error:
        return f"{outcome.error}: {outcome.message}" if outcome.message else outcome.error
    return f"no error, on the {outcome.path} path"


def check_heads(name: str, text_config: Any, count: int) -> None:
    """Refuse a model whose attention heads cannot be divided among ``count`` ranks. Raises ConfigError."""
    heads = text_config.num_attention_heads
    groups = getattr(text_config, "num_key_value_heads", None) or heads
    if heads % count or groups % count:
        raise ConfigError(
            f"tensor_parallel is {count}, but the decoder of model {name} has {heads} attention heads and {groups} "
            "key-value heads, and each rank needs the same number of them; choose a divisor of both"
        )
