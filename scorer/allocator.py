"""What a process does with memory that it has freed."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""Of glibc's <malloc.h>."""


def keep_freed_memory() -> None:
    """Let the process keep freed blocks of any size for its next use of them.

    glibc gives large blocks back to the kernel at once, which clears every page again before the next layer may write
    to it: for a small model on a CPU a tenth of the time, more in a thread than in the main one. The process then
    keeps what it held at its peak. Nothing happens where the C library has no such switch.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
