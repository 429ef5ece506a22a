"""Two ends of a connection in memory, in the hands of a test, and transports that note what they are told."""

from __future__ import annotations

import asyncio
from typing import Any

from elsewhere.agent.mux import Mux, Stream


class Wire(asyncio.Transport):
    """A transport in memory: what is written is kept in ``sent``, until the test carries it."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.sent = bytearray()
        self._reading = True
        self.closed = ""
        self.unsent = 0

    def begin(self) -> Wire:
        self.protocol.connection_made(self)
        return self

    def write(self, data: Any) -> None:
        assert not self.closed, "written to after the end"
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def is_reading(self) -> bool:
        return self._reading

    def is_closing(self) -> bool:
        return bool(self.closed)

    def close(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self._end("aborted")

    def _end(self, how: str) -> None:
        if not self.closed:
            self.closed = how
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def take(self, count: int = -1) -> bytes:
        """Take up to so many bytes of what was written."""
        count = len(self.sent) if count < 0 else count
        data = bytes(self.sent[:count])
        del self.sent[:count]
        return data


class Pair:
    """Two Muxes: ``agent`` opens as the client does, ``home`` as the server; streams that come in wait
    in ``to_agent`` and ``to_home``."""

    def __init__(self, **kwargs: Any) -> None:
        self.to_agent: list[Stream] = []
        self.to_home: list[Stream] = []
        self.lost: list[str] = []
        self.agent = Mux(client=True, accept=self.to_agent.append, lost=self.lost.append, **kwargs)
        self.home = Mux(client=False, accept=self.to_home.append, lost=self.lost.append, **kwargs)
        self.agent_wire = Wire(self.agent).begin()
        self.home_wire = Wire(self.home).begin()

    async def carry(self, limit: int = 1 << 40) -> int:
        """Carry bytes both ways until nothing moves, or so many were carried; returns how many."""
        carried = 0
        while carried < limit:
            await settled()
            moved = 0
            for here, there in ((self.agent_wire, self.home_wire), (self.home_wire, self.agent_wire)):
                data = here.take(min(limit - carried - moved, 1 << 18))
                moved += len(data)
                if data and not there.closed:
                    there.protocol.data_received(data)
            if not moved:
                break
            carried += moved
        await settled()
        return carried

    async def tear(self) -> None:
        """The connection breaks; what was on its way is lost."""
        self.agent_wire.abort()
        self.home_wire.abort()
        await settled()


async def settled() -> None:
    """Let what was put off to the next turns of the loop be done."""
    for _ in range(5):
        await asyncio.sleep(0)
