"""Where clients of this home reach one kernel: at the same paths for every launch of it.

They take five listening sockets, so a home of thousands of kernels opens them only for who comes.
"""

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
    ``pipes``. ``wanted``: clients have been let in once, and are to be let in again.
    """

    def __init__(self, directory: Path, pipes: MutableSet[Pipe]) -> None:
        self._directory = directory
        self._pipes = pipes
        self._endpoints: Endpoints | None = None
        self._line: Line | None = None
        self._leads = False
        self._opening = asyncio.Lock()
        self.wanted = False

    def lead_to(self, line: Line) -> None:
        """Lead to this line from now on."""
        self._line, self._leads = line, True
        if self._endpoints is None:
            self._endpoints = Endpoints(self._directory, self.connect)
        line.sockets = {"transport": "ipc", "ip": self._endpoints.ip, **self._endpoints.ports}
        line.let_in = self.open

    async def open(self) -> None:
        """Let clients in from now on, once there is a line. May be called again. Raises OSError."""
        self.wanted = True
        async with self._opening:
            if not self._leads or self._endpoints is None:
                return
            try:
                await self._endpoints.open()
            except BaseException:
                self._endpoints.close()
                raise

    def connection(self, signing: Signing) -> Connection:
        """Return how to get in, once they are open."""
        assert self._endpoints is not None
        return Connection(self._endpoints.ip, self._endpoints.ports, signing.key, signing.scheme)

    def publish(self) -> None:
        """Make the paths anew that a stock cleanup has deleted."""
        if self._endpoints is not None:
            self._endpoints.publish()

    def close(self) -> None:
        """Let nobody in any more. May be called more than once."""
        self._leads = False
        if self._endpoints is not None:
            self._endpoints.close()

    def connect(self, channel: str) -> asyncio.BaseProtocol:
        """Return the protocol object of a new connection to this channel of the line."""
        assert self._line is not None
        protocol = self._line.connect(channel)
        if isinstance(protocol, Pipe):
            self._pipes.add(protocol)
        return protocol
