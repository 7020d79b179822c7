"""Kills of everything that a run through Ray consists of, at random moments of it, on clusters of one machine.

driver    the process that the user started
actor     a process that holds the model
node      a machine: its raylet and all workers; another one joins
raylet    the process that manages a machine, alone: its workers find themselves orphaned; another machine joins
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ray.cluster_utils import Cluster

from tests.conftest import ROOT

KINDS: Final = ("driver", "actor", "node", "raylet")
ACTORS: Final = 2
RANDOM_SECONDS: Final = 0.6
"""Of two units' scoring time."""
_PATIENCE: Final = 240.0


@dataclass
class Campaign:
    """One output, scored by runs on one cluster that loses a part of each of ``kinds``, one after the other.

    A kill waits for a unit to be committed, so that every run comes to something, and then for a random time, so that
    it hits reading, scoring, committing and publishing alike.

    Attributes:
        folder: where the output and the logs lie.
        killed: how many of each kind; a run may end before all kinds had their turn.
    """

    dataset: Path
    folder: Path
    kinds: Sequence[str]
    seed: int
    killed: Counter[str] = field(default_factory=Counter)

    @property
    def output(self) -> Path:
        return self.folder / "out"

    @property
    def rows_scored(self) -> int:
        """Rows that were scored, all runs together."""
        log = self.folder / "events"
        return sum(line.split()[1] == "score" for line in log.read_text().splitlines()) if log.exists() else 0

    def run(self) -> None:
        """Returns when a run has ended well."""
        chosen = random.Random(self.seed)
        with ExitStack() as stack:
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
            stack.callback(cluster.shutdown)
            nodes = [cluster.add_node(num_cpus=2)]  # that may be lost; the head works too, and is not
            waiting = list(self.kinds)
            while True:
                with self._drive(cluster) as driver:
                    stack.callback(driver.kill)
                    while driver.poll() is None:
                        if waiting and self._progress(driver):
                            time.sleep(chosen.uniform(0, RANDOM_SECONDS))
                            kind = waiting[0]
                            if strike(kind, cluster, nodes, driver):
                                self.killed[waiting.pop(0)] += 1
                        time.sleep(0.02)
                if driver.returncode == 0:
                    return
                assert driver.returncode == -signal.SIGKILL, self._said()

    def _progress(self, driver: subprocess.Popen[bytes]) -> bool:
        """Wait for a commit; False where the run ended before."""
        before, deadline = len(markers(self.output)), time.monotonic() + _PATIENCE
        while driver.poll() is None:
            if len(markers(self.output)) > before:
                return True
            assert time.monotonic() < deadline, f"no unit in {_PATIENCE} s:\n{self._said()}"
            time.sleep(0.02)
        return False

    def _drive(self, cluster: Cluster) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.pipelines.faults.ray_driver", str(self.dataset), str(self.output)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (self.folder / "said").open("ab") as said:
            return subprocess.Popen(
                [*command, cluster.address, str(self.folder / "events")],
                cwd=ROOT,
                env=environment,
                stdout=said,
                stderr=said,
            )

    def _said(self) -> str:
        return (self.folder / "said").read_text()[-3000:]


def strike(kind: str, cluster: Cluster, nodes: list[Any], driver: subprocess.Popen[bytes]) -> bool:
    """Kill one; a node that is lost is replaced. False where there is none of the kind at the moment."""
    if kind == "driver":
        driver.kill()
        return True
    if kind == "actor":
        actors = [pid for node in (cluster.head_node, *nodes) for pid in children(raylet(node), "ScoreActor")]
        if actors:
            os.kill(actors[0], signal.SIGKILL)
        return bool(actors)
    victim = nodes.pop(0)
    workers = children(raylet(victim), "ray::") if kind == "node" else []
    for pid in [raylet(victim), *workers]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    cluster.remove_node(victim, allow_graceful=False)
    nodes.append(cluster.add_node(num_cpus=2))
    return True


def markers(output: Path) -> list[Path]:
    """The markers of committed units."""
    return list((output / "_commits").glob("[!.]*.json"))


def raylet(node: Any) -> int:
    """The process id of a node's raylet."""
    return int(node.all_processes["raylet"][0].process.pid)


def children(parent: int, name: str) -> list[int]:
    """Living children of a process whose command line holds ``name``."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            its_parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if its_parent == parent and name in (entry / "cmdline").read_text():
                found.append(int(entry.name))
    return found
