"""How late an event loop runs what is due: the first sign of something that blocks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

INTERVAL = 0.1
"""Seconds between two samples; what blocks the loop for longer is always seen."""


class LoopDelay:
    """Tells ``told`` the delay of each sample, in seconds. ``start`` and ``close`` belong to the loop."""

    def __init__(self, told: Callable[[float], None], interval: float = INTERVAL) -> None:
        self._told = told
        self._interval = interval
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to sample the running loop."""
        self._next(asyncio.get_running_loop())

    def close(self) -> None:
        """Sample no more. May be called more than once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + self._interval
        self._timer = loop.call_at(due, self._sample, loop, due)

    def _sample(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._told(max(0.0, loop.time() - due))
        self._next(loop)
