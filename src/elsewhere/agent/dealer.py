"""The sockets by which one front end asks the kernel: shell, control and stdin, known by one identity."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Callable, Dict, List, Optional, cast

from .iopub import dial
from .zmtp import Dealer, ZmtpError

CHANNELS = ("shell", "control", "stdin")
STDIN_FIRST = 1.0
"""Seconds that a request waits for the stdin socket: who is asked for input must be known by then."""

Heard = Callable[[str, bytes, List[int]], None]


class Dealers:
    """Connects when the first request comes. ``heard`` gets the channel and whole messages, as the wire
    has them. ``room`` is called when ``crowded`` has become false. ``close`` it at the end.
    """

    def __init__(self, connection: Dict[str, Any], heard: Heard, room: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        identity = b"elsewhere-" + os.urandom(8).hex().encode()
        self._sockets = {channel: DealerSocket(channel, identity, heard, room) for channel in CHANNELS}
        self._waiting: List[bytes] = []
        self._open = False
        self._tasks = [
            loop.create_task(_dial(connection, channel, socket)) for channel, socket in self._sockets.items()
        ]
        self._tasks.append(loop.create_task(self._open_shell()))

    @property
    def crowded(self) -> bool:
        """Whether the kernel takes nothing now, so that no more should come."""
        return any(socket.paused for socket in self._sockets.values())

    @property
    def over(self) -> bool:
        """Whether a connection was lost: the kernel that they led to is gone."""
        return any(socket.over for socket in self._sockets.values())

    def send(self, channel: str, wire: bytes) -> None:
        """Send one message, now or when the sockets are connected."""
        if channel == "shell" and not self._open:
            self._waiting.append(wire)
        else:
            self._sockets[channel].send(wire)

    async def _open_shell(self) -> None:
        await asyncio.wait({self._sockets["stdin"].connected}, timeout=STDIN_FIRST)
        self._open = True
        for wire in self._waiting:
            self._sockets["shell"].send(wire)
        self._waiting.clear()

    def close(self) -> None:
        """Close all of them."""
        for task in self._tasks:
            task.cancel()
        for socket in self._sockets.values():
            socket.close()


async def _dial(connection: Dict[str, Any], channel: str, socket: DealerSocket) -> None:
    await dial(connection, channel + "_port", lambda: socket)


class DealerSocket(asyncio.Protocol):
    """One DEALER. What is sent before the handshake is over waits for it."""

    def __init__(self, channel: str, identity: bytes, heard: Heard, room: Callable[[], None]) -> None:
        self.paused = False
        self.over = False
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._channel = channel
        self._heard = heard
        self._room = room
        self._dealer = Dealer(identity)
        self._transport: Optional[asyncio.Transport] = None
        self._waiting: List[bytes] = []
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of it
        self._transport = transport
        if self._closed:
            transport.abort()
            return
        transport.write(self._dealer.outgoing())

    def data_received(self, data: bytes) -> None:
        """Take all that came."""
        assert self._transport is not None
        try:
            batch = self._dealer.receive(data)
        except ZmtpError:
            self._transport.abort()
            return
        answer = self._dealer.outgoing()
        if answer:
            self._transport.write(answer)
        if self._dealer.ready and not self.connected.done():
            self.connected.set_result(None)
            for wire in self._waiting:
                self._transport.write(wire)
            self._waiting.clear()
        if batch is not None and not self._closed:
            self._heard(self._channel, batch.wire, batch.ends)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """The kernel's side is closed: it is over, and its exit is told otherwise."""
        self._transport = None
        self.over = True
        self.connected.cancel()
        self.resume_writing()

    def pause_writing(self) -> None:
        """The kernel takes nothing now."""
        self.paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        was_paused, self.paused = self.paused, False
        if was_paused:
            self._room()

    def send(self, wire: bytes) -> None:
        """Send one message."""
        if not self.connected.done():
            self._waiting.append(wire)
        elif self._transport is not None:
            self._transport.write(wire)

    def close(self) -> None:
        """Close it; may be called before it was connected."""
        self._closed = True
        self.connected.cancel()
        if self._transport is not None:
            self._transport.abort()
