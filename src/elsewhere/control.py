"""One request on a kernel's control channel, asked by home itself and by no front end."""

from __future__ import annotations

import asyncio
import os
import socket

from .agent.dealer import DealerSocket


async def ask(far_end: asyncio.BaseProtocol, wire: bytes) -> None:
    """Send one message of the wire; return when it is answered, or the connection is over.

    ``far_end``: the protocol object of a new connection to the control channel.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    try:
        await loop.connect_accepted_socket(lambda: far_end, theirs)
    except BaseException:
        theirs.close()
        ours.close()
        raise
    _, asking = await loop.create_connection(_Asking, sock=ours)
    try:
        asking.send(wire)
        await asking.done
    finally:
        asking.close()


class _Asking(DealerSocket):
    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        super().__init__("control", b"elsewhere-" + os.urandom(8).hex().encode(), self._answered, _nothing)

    def _answered(self, channel: str, wire: bytes, ends: list[int]) -> None:
        self._end()

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The kernel is over, or the job."""
        super().connection_lost(exc)
        self._end()


def _nothing() -> None:
    """One message is never too much."""
