"""Hearing of the end of a process at once, instead of at the next survey."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable

from elsewhere.backends.local.processes import Identity, find


class Ends:
    """Waits for the end of any of some processes. Where the system has no pidfd, it never comes."""

    def __init__(self) -> None:
        self._fds: dict[Identity, int] = {}
        self._event = asyncio.Event()

    def follow(self, identities: Iterable[Identity]) -> None:
        """Listen for the end of these, and of no others any more."""
        wanted = set(identities)
        for identity in set(self._fds) - wanted:
            self._drop(identity)
        for identity in wanted - set(self._fds):
            self._add(identity)

    async def wait(self, seconds: float) -> None:
        """Return at the next end, or after that time."""
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(seconds, self._event.set)
        try:
            await self._event.wait()
        finally:
            alarm.cancel()
            self._event.clear()

    def close(self) -> None:
        """Listen no more."""
        self.follow(())

    def _add(self, identity: Identity) -> None:
        if not hasattr(os, "pidfd_open"):
            return
        try:
            fd = os.pidfd_open(identity.pid)
        except OSError:
            self._event.set()
            return
        if find(identity) is None:  # the pid is another's by now
            os.close(fd)
            self._event.set()
            return
        self._fds[identity] = fd
        asyncio.get_running_loop().add_reader(fd, self._ended, identity)

    def _ended(self, identity: Identity) -> None:
        self._drop(identity)
        self._event.set()

    def _drop(self, identity: Identity) -> None:
        fd = self._fds.pop(identity)
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
