"""Work whose client leaves: cancelled, and ended before its request is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.disconnect import while_connected
from service.problems import ProblemError


async def disconnected() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def never() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def test_work_has_ended_before_the_request_of_a_client_that_left() -> None:
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):  # cancelled work may have to wait too
                await asyncio.sleep(0)
            ended = True

    async def request() -> bool:
        with pytest.raises(ProblemError):
            await while_connected(disconnected, work())
        return ended

    assert asyncio.run(request())


def test_the_result_and_the_error_of_work_are_its_own() -> None:
    async def fails() -> None:
        raise KeyError("x")

    async def answers() -> int:
        await asyncio.sleep(0)
        return 7

    assert asyncio.run(while_connected(never, answers())) == 7
    with pytest.raises(KeyError):
        asyncio.run(while_connected(never, fails()))
