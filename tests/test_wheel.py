"""What is published: the wheel's contents, and that it works where it is installed, in a folder that is not ours.

The wheel is built from the source distribution, so that both are complete. It is installed alone into a new virtual
environment, before the packages of the one that runs the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from shutil import copytree, ignore_patterns

import pyarrow.parquet as pq
import pytest

import scorer
from scorer.mini import SAMPLE_PATH
from tests.conftest import ROOT

PACKAGES = ("pipelines", "scorer", "service", "tokensight")
NOT_SOURCE = (".*", "__pycache__", "*.egg-info", "build", "dist", "out", "shared")
ROWS = 4
HEAVY = ("torch", "transformers", "PIL", "pyarrow")
"""Packages whose own types are not of interest, and take a checker a minute to read."""

CLIENT = """
import numpy as np
import torch

from scorer import Sample, Scorer
from scorer.training import WeightTable, weighted_cross_entropy
from scorer.weights import Method
from tokensight import Sample as SameSample

scorer = Scorer.load("model")
results = scorer.score([SameSample.caption("1", b"", "a red kite"), Sample.caption("2", b"", "a boat")])
table = WeightTable.open("out", method=Method("cal", {"window": 1}))
rows: int = len(table)
loss: torch.Tensor = weighted_cross_entropy(torch.zeros(1, 2, 4), torch.zeros(1, 2), torch.ones(1, 2))

# Strict mypy complains of an ignore that ignores nothing: were the packages untyped, these three would be.
scorer.score("a red kite")  # type: ignore[arg-type]
Method(1)  # type: ignore[arg-type]
words: str = len(table)  # type: ignore[assignment]
"""

ISOLATED = """
from pipelines.cli.options import make_job, parse_options
from pipelines.executors.isolation.isolate import isolate
from pipelines.run.job import prepare

run = prepare(make_job(parse_options(["--input", "data", "--output", "isolated", "--executor", "local"])))
print(isolate(run.work, run.plans[0].units[0]).tally.ok)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    copytree(ROOT, folder / "checkout", ignore=ignore_patterns(*NOT_SOURCE))
    with tarfile.open(built("sdist", folder / "checkout", folder)) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    return built("wheel", source, folder)


def built(kind: str, source: Path, folder: Path) -> Path:
    """What pip has setuptools build, without an environment of its own for it."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment that holds the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    python = str(folder / "bin" / "python")
    for command in (
        ["venv", "--without-pip", str(folder)],
        ["pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
    ):
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (own,) = folder.glob("lib/python*/site-packages")
    # A line in a .pth file goes to the end of sys.path, and the .pth files over there, editable installs, are not read.
    (own / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: four rows of data, and packages of our names that are not ours."""
    folder = tmp_path_factory.mktemp("foreign")
    for name in ("pipelines", "scorer", "service"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise RuntimeError('a package of the user')\n")
    (folder / "data").mkdir()
    shard = min(SAMPLE_PATH.glob("*.parquet"))
    pq.write_table(pq.read_table(shard).slice(0, ROWS), folder / "data" / "a.parquet")
    return folder


def run(*command: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    hidden = ("PYTHONPATH", "PYTHONSAFEPATH", "VIRTUAL_ENV", "RAY_ADDRESS")
    environment: Mapping[str, str] = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**environment, **more}, capture_output=True, text=True
    )


def test_the_wheel_holds_what_is_used_and_no_more(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {*PACKAGES, f"tokensight-{scorer.__version__}.dist-info"}
    present = set(names)
    assert {f"{package}/py.typed" for package in PACKAGES} <= present
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert path.relative_to(ROOT).as_posix() in present, f"{path} is left out"
    for name in ("scorer/mini/model/model.safetensors", "scorer/mini/sample/train-00000-of-00002.parquet"):
        assert name in present
    for name in ("pipelines/report/assets/report.html.jinja", "service/page/static/index.html"):
        assert name in present
    assert not [name for name in names if "test" in name.lower() or "fake" in name.lower() or "bench" in name.lower()]


def test_the_metadata_is_the_projects(wheel: Path) -> None:
    info = f"tokensight-{scorer.__version__}.dist-info"
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(f"{info}/METADATA").decode()
    assert f"\nVersion: {scorer.__version__}\n" in metadata
    assert "\nProvides-Extra: all\n" in metadata
    assert archive.read(f"{info}/entry_points.txt").decode().split() == [
        *("[console_scripts]", "tokensight", "=", "tokensight.command:main")
    ]


def test_what_is_imported_is_the_wheel(installed: Path, foreign: Path) -> None:
    """Else the other tests of this file would say nothing of it."""
    names = ", ".join(PACKAGES)
    code = f"import {names}; print(*(one.__file__ for one in ({names})))"
    done = run(installed / "python", "-P", "-c", code, cwd=foreign)
    assert done.returncode == 0, done.stderr
    assert all(Path(file).is_relative_to(installed.parent) for file in done.stdout.split())
    shadowed = run(installed / "python", "-c", "import scorer", cwd=foreign)
    assert "a package of the user" in shadowed.stderr, "negative control: the folder is hostile"


@pytest.mark.timeout(300)
def test_the_job_runs_on_ray_in_a_folder_with_packages_of_our_names(installed: Path, foreign: Path) -> None:
    command = ["score", "--input", "data", "--output", "out", "--actors", "1", "--cpus-per-actor", "3", "--no-report"]
    done = run(installed / "tokensight", *command, cwd=foreign)
    assert done.returncode == 0, done.stderr
    assert json.loads((foreign / "out" / "_SUCCESS").read_text())["ok"] == ROWS
    assert "#   tokensight score --config" in (foreign / "out" / "_config.yaml").read_text()
    done = run(installed / "tokensight", "inspect", "out", "--json", cwd=foreign)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["problems"] == []


def test_so_does_the_process_in_which_rows_are_tried_alone(installed: Path, foreign: Path) -> None:
    done = run(installed / "python", "-P", "-c", ISOLATED, cwd=foreign)
    assert (done.returncode, done.stdout) == (0, f"{ROWS}\n"), done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["score", "--help"], ["version"]])
def test_so_do_the_other_commands(installed: Path, foreign: Path, arguments: list[str]) -> None:
    done = run(installed / "tokensight", *arguments, cwd=foreign)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_its_types_are_seen_by_a_strict_checker(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(CLIENT)
    skipped = "\n".join(f"[mypy-{name}.*]\nfollow_imports = skip" for name in HEAVY)
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nstrict = True\n{skipped}\n")
    done = run(sys.executable, "-m", "mypy", "--python-executable", installed / "python", "client.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
