"""Turns: how many kernels may be starting on one cluster at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from .changes import Changes

LONGEST = 10.0
"""Seconds after which a start gives its turn away, however long it still takes: it may never be ready."""


class Turns:
    """``at_once`` starts at a time, in the order in which they asked; None: as many as ask.

    Belongs to one loop.
    """

    def __init__(self, at_once: int | None) -> None:
        self.at_once = at_once
        self._free = asyncio.Semaphore(at_once) if at_once is not None else None

    @asynccontextmanager
    async def turn(self, wanted: Callable[[], bool], changes: Changes) -> AsyncIterator[None]:
        """Wait for a turn and have it until the end of the block, or for LONGEST seconds.

        Goes on without one when it is ``wanted`` no longer, of which ``changes`` tells.
        """
        if self._free is None or not await _acquired(self._free, wanted, changes):
            yield
            return
        free, had = self._free, True

        def give_away() -> None:
            nonlocal had
            if had:
                had = False
                free.release()

        timer = asyncio.get_running_loop().call_later(LONGEST, give_away)
        try:
            yield
        finally:
            timer.cancel()
            give_away()


async def _acquired(free: asyncio.Semaphore, wanted: Callable[[], bool], changes: Changes) -> bool:
    acquiring = asyncio.create_task(free.acquire())
    change: asyncio.Future[None] | None = None
    try:
        while not acquiring.done() and wanted():
            change = changes.next()
            either: set[asyncio.Future[Any]] = {acquiring, change}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            change.cancel()
    except BaseException:
        if change is not None:
            change.cancel()
        if await _called_off(acquiring):
            free.release()
        raise
    return acquiring.done() or await _called_off(acquiring)


async def _called_off(acquiring: asyncio.Task[Literal[True]]) -> bool:
    """Stop to wait, and return whether it had been acquired in that very moment."""
    acquiring.cancel()
    await asyncio.wait({acquiring})
    return not acquiring.cancelled()
