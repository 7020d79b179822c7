"""Trainers whose packages pin other versions than ours: installed apart, and run in processes of their own.

Each is unpacked without its dependencies into a folder, beside the few small packages that the code under test
imports and this environment lacks; torch, transformers and datasets are ours. A module here, run with that folder on
the path, drives the trainer's own code and prints what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.stores import cache, locked, skip

ROOT = Path(__file__).resolve().parents[4]
PACKAGES: Final = {
    "ms-swift": (
        "ms-swift==4.6.0",
        "modelscope==1.40.2",
        "modelscope-hub==0.5.1",
        "json-repair==0.64.5",
        "einops==0.8.2",
    ),
    "axolotl": ("axolotl==0.19.0", "addict==2.4.0", "colorama==0.4.6"),
    "llamafactory": ("llamafactory==0.9.5", "omegaconf==2.4.0", "torchdata==0.11.0"),
}


def install(name: str) -> Path:
    """The folder that holds a trainer's packages; skips the test where they cannot be had."""
    folder = cache() / "trainers" / "-".join(PACKAGES[name]).replace("==", "-")
    with locked(f"trainer-{name}"):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command += ["--only-binary", ":all:", "--target", str(folder), *PACKAGES[name]]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                skip(name, done.stderr.strip()[-500:])
            (folder / "complete").touch()
    return folder


def drive(name: str, *arguments: str | Path) -> Any:
    """Run this package's module of that name in a process where the trainer can be imported; what it printed last."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(install(name)), str(ROOT)]),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "MODELSCOPE_CACHE": str(arguments[0]),
        "HF_HOME": str(arguments[0]),
        "OMP_NUM_THREADS": "1",
    }
    module = f"tests.scorer.training.libraries.{name.replace('-', '_')}_driver"
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return json.loads(done.stdout.splitlines()[-1])
