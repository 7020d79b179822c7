"""What was made last is kept, within its limit, and made once however many threads ask for it."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from scorer.encoding.recent import _OVERHEAD, Recent


def recent(values: int) -> Recent[str, bytes]:
    """Room for ``values`` values of 100 bytes."""
    return Recent(values * (_OVERHEAD + 100), len)


def test_a_kept_value_is_the_same_object() -> None:
    kept = recent(2)
    first = kept.get("a", lambda: bytes(100))
    assert kept.get("a", lambda: pytest.fail("made again")) is first


def test_the_least_recently_used_is_dropped_at_the_limit() -> None:
    kept = recent(2)
    a = kept.get("a", lambda: bytes(100))
    kept.get("b", lambda: bytes(100))
    assert kept.get("a", lambda: bytes(100)) is a
    kept.get("c", lambda: bytes(100))  # drops b
    assert kept.get("a", lambda: pytest.fail("a was used after b")) is a
    assert kept.get("b", lambda: b"made again") == b"made again"
    assert kept.nbytes <= 2 * (_OVERHEAD + 100)


def test_a_value_above_the_limit_is_returned_and_not_kept() -> None:
    kept = recent(2)
    assert kept.get("large", lambda: bytes(10**5)) == bytes(10**5)
    assert (len(kept), kept.nbytes) == (0, 0)


def test_what_cannot_be_made_is_raised_and_tried_again() -> None:
    kept = recent(2)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda: bytes(1 // 0))
    assert (len(kept), kept.nbytes) == (0, 0)
    assert kept.get("a", lambda: b"now") == b"now"


def test_threads_that_ask_at_once_get_one_object() -> None:
    kept, made, together = recent(2), [], Barrier(4)

    def make() -> bytes:
        time.sleep(0.05)
        made.append(1)
        return bytes(100)

    def ask(_: int) -> bytes:
        together.wait()
        return kept.get("a", make)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert len(made) == 1
    assert len({id(one) for one in found}) == 1


def test_threads_may_drop_what_others_make() -> None:
    kept, interval = recent(1), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda i: kept.get(str(i % 7), lambda: bytes([i % 7]) * 100), range(3000)))
    finally:
        sys.setswitchinterval(interval)
    assert all(one == bytes([i % 7]) * 100 for i, one in enumerate(found))
    assert kept.nbytes <= _OVERHEAD + 100
    assert kept.nbytes == len(kept) * (_OVERHEAD + 100)
