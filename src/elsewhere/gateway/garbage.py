"""When Python looks for cycles of dead objects: at set times, and not in the middle of a storm.

By itself it goes through all objects that are alive whenever a quarter has come new. With thousands of
kernels that takes half a second, in which no loop runs, again and again while they start or call.
"""

from __future__ import annotations

import asyncio
import gc

YOUNG = (2_000, 10, 1_000_000)
"""Thresholds (see gc.set_threshold): the young are looked at often, all only when we say."""

EVERY = 600.0
"""Seconds between two looks at all."""


class Garbage:
    """``start`` and ``close`` belong to the loop that runs while this process collects as we say."""

    def __init__(self) -> None:
        self._before = gc.get_threshold()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Leave what is there now out of all later looks: modules, mostly."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*YOUNG)
        self._next()

    def close(self) -> None:
        """Leave it to Python again. May be called more than once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            gc.unfreeze()
            gc.set_threshold(*self._before)

    def _next(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(EVERY, self._look)

    def _look(self) -> None:
        gc.collect()
        self._next()
