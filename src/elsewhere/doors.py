"""Where clients of this home reach one kernel: at the same paths for every launch of it."""

from __future__ import annotations

import asyncio
from collections.abc import MutableSet
from pathlib import Path

from .agent.pipe import Pipe
from .endpoints import Endpoints
from .line import Line
from .parcel import Signing
from .wish import Connection


class Doors:
    """One kernel's endpoints, which lead to the line of its present launch.

    Clients of a job that was lost reconnect to the next one there. Each connection's pipe is put into
    ``pipes``.
    """

    def __init__(self, directory: Path, pipes: MutableSet[Pipe]) -> None:
        self._directory = directory
        self._pipes = pipes
        self._endpoints: Endpoints | None = None
        self._line: Line | None = None

    async def open(self, line: Line) -> None:
        """Lead to this line from now on. Raises OSError."""
        self._line = line
        if self._endpoints is None:
            self._endpoints = Endpoints(self._directory, self._connect)
        try:
            await self._endpoints.open()
        except BaseException:
            self._endpoints.close()
            raise
        line.sockets = {"transport": "ipc", "ip": self._endpoints.ip, **self._endpoints.ports}

    def connection(self, signing: Signing) -> Connection:
        """Return how to get in, once they have been opened."""
        assert self._endpoints is not None
        return Connection(self._endpoints.ip, self._endpoints.ports, signing.key, signing.scheme)

    def publish(self) -> None:
        """Make the paths anew that a stock cleanup has deleted."""
        if self._endpoints is not None:
            self._endpoints.publish()

    def close(self) -> None:
        """Let nobody in any more. May be called more than once."""
        if self._endpoints is not None:
            self._endpoints.close()

    def _connect(self, channel: str) -> asyncio.BaseProtocol:
        assert self._line is not None
        protocol = self._line.connect(channel)
        if isinstance(protocol, Pipe):
            self._pipes.add(protocol)
        return protocol
