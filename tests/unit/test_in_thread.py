"""Calling what blocks: a cancellation waits for the thread, which cannot be stopped."""

from __future__ import annotations

import asyncio
import threading

import pytest

from elsewhere.backend import in_thread


async def test_what_it_returns_and_raises_comes_back() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation_waits_until_the_call_is_over(fails: bool) -> None:
    begun, go_on = threading.Event(), threading.Event()
    done: list[bool] = []

    def work() -> None:
        begun.set()
        go_on.wait(10)
        done.append(True)
        if fails:
            raise OSError("nobody hears this")

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]
