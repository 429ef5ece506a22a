"""Telling waiters that something has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Changes:
    """Any number of waiters for the next change of something. One event loop only.

    ``listener`` is called first at each change. ``count``: how many there were; from any thread.
    """

    def __init__(self) -> None:
        self.listener: Callable[[], None] | None = None
        self.count = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Wake all who wait."""
        self.count += 1
        if self.listener is not None:
            self.listener()
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def next(self) -> asyncio.Future[None]:
        """Return a future for the next change; cancel it when it is no longer of interest."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        waiter.add_done_callback(self._waiters.discard)
        return waiter
