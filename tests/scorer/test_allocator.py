"""Freed memory is kept: the kernel need not clear it again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, threading
import numpy as np
from scorer.allocator import keep_freed_memory

def fill():
    for _ in range(20):
        blocks = [np.ones(2**20) for _ in range(6)]  # 8 MiB each: 2,048 pages
        del blocks

if sys.argv[1] == "keep":
    keep_freed_memory()
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
thread = threading.Thread(target=fill)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a switch of glibc")
def test_pages_are_not_cleared_again() -> None:
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", PROGRAM, way], check=True, capture_output=True, text=True).stdout)
        for way in ("keep", "as it is")
    )
    assert kept < 10_000 < given_back
