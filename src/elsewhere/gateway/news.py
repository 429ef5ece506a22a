"""Word of changes, from the core's thread to the loop that serves HTTP, and on to who is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

LAST_WORDS = 1.0
"""Seconds that a stream has to end by itself when the server stops."""


class News:
    """Calls ``came`` on the loop that made it, once for any number of quick ``ring``\\ s."""

    def __init__(self, came: Callable[[], None]) -> None:
        self._came = came
        self._loop = asyncio.get_running_loop()
        self._on_the_way = False

    def ring(self) -> None:
        """Something has changed. From any thread; nothing once the loop is closed."""
        if self._on_the_way:
            return
        self._on_the_way = True
        try:
            self._loop.call_soon_threadsafe(self._arrive)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _arrive(self) -> None:
        self._on_the_way = False  # what changes from now on rings again
        self._came()


class Stream(Protocol):
    """An answer that goes on for as long as it is listened to."""

    def end(self) -> None:
        """Come to an end soon."""

    def drop(self) -> None:
        """End now: close the connection."""


class Streams:
    """Those that are open. ``aclose`` ends them all, for a server that stops."""

    def __init__(self) -> None:
        self.closing = False
        self._open: dict[Stream, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, stream: Stream) -> None:
        """It has begun."""
        self._open[stream] = asyncio.get_running_loop().create_future()
        if self.closing:
            stream.end()

    def ended(self, stream: Stream) -> None:
        """It is over. May be called more than once."""
        over = self._open.pop(stream, None)
        if over is not None:
            over.set_result(None)

    async def aclose(self) -> None:
        """End all, politely first; returns when they are over. May be called more than once."""
        self.closing = True
        for stream in list(self._open):
            stream.end()
        await self._until_over()
        for stream in list(self._open):
            stream.drop()
        await self._until_over()

    async def _until_over(self) -> None:
        if self._open:
            await asyncio.wait(self._open.values(), timeout=LAST_WORDS)
