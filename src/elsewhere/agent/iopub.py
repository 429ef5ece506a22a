"""The kernel's one subscriber: it never stops reading, so the kernel never drops a message."""

from __future__ import annotations

import asyncio
import base64
import socket
from typing import Any, Callable, Dict, List, Optional, Tuple, cast

from . import message
from .drain import Drain
from .outbox import Outbox
from .zmtp import Subscriber, ZmtpError

RETRY = 0.01

EARLY = 100
"""Messages among which the welcome is looked for: the kernel may have printed before it sees us subscribe."""


class IopubReader(asyncio.Protocol):
    """From the kernel's iopub socket to the outbox. ``subscribed`` resolves after the handshake,
    ``greeted`` with the kernel's welcome.

    A kernel's ``iopub_welcome`` (JEP 65) answers our subscription, not those of the clients at
    home: it is kept in ``welcome`` (base64 of the wire), for home to give to each of them.
    """

    def __init__(self, outbox: Outbox) -> None:
        loop = asyncio.get_running_loop()
        self.subscribed: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.welcome = ""
        self.problem = ""
        self._early = EARLY
        self._outbox = outbox
        self._subscriber = Subscriber()
        self._transport: Optional[asyncio.Transport] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of it
        self._transport = transport
        transport.write(self._subscriber.outgoing())

    def data_received(self, data: bytes) -> None:
        """Take all that came."""
        assert self._transport is not None
        try:
            batch = self._subscriber.receive(data)
        except ZmtpError as error:
            self.problem = str(error)
            self._transport.abort()
            return
        answer = self._subscriber.outgoing()
        if answer:
            self._transport.write(answer)
        if self._subscriber.ready and not self.subscribed.done():
            self.subscribed.set_result(None)
        if batch is None:
            return
        wire, ends = batch
        if self._early > 0:
            self._early -= len(ends)
            wire, ends = self._take_welcome(wire, ends)
        if ends:
            self._outbox.add(wire, ends)

    def _take_welcome(self, wire: bytes, ends: List[int]) -> Tuple[bytes, List[int]]:
        """Keep the welcome, if it is among these, and return the others."""
        at = message.index(wire, ends, "iopub_welcome")
        if at is None:
            return wire, ends
        start, end = ends[at - 1] if at else 0, ends[at]
        self._early = 0
        self.welcome = base64.b64encode(wire[start:end]).decode()
        self.greeted.set_result(None)
        later = [each - (end - start) for each in ends[at + 1 :]]
        return wire[:start] + wire[end:], [*ends[:at], *later]

    @property
    def may_welcome(self) -> bool:
        """Whether the kernel can see that somebody subscribed, so that it may welcome him."""
        return self._subscriber.peer_type == b"XPUB"

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """The kernel's side is closed: everything that it published is in the outbox."""
        if not self.over.done():
            self.over.set_result(None)

    def close(self) -> None:
        """Stop listening."""
        if self._transport is not None:
            self._transport.abort()


async def listen(connection: Dict[str, Any], outbox: Outbox) -> IopubReader:
    """Connect to the kernel's iopub socket as ``dial`` does."""
    sock = await connect(connection, "iopub_port")
    reader = IopubReader(outbox)
    Drain(sock, reader)
    return reader


async def dial(
    connection: Dict[str, Any], port_name: str, factory: Callable[[], asyncio.Protocol]
) -> asyncio.Protocol:
    """Connect to one of the kernel's sockets; tries until it listens, so cancel it to give up."""
    sock = await connect(connection, port_name)
    return (await asyncio.get_running_loop().create_connection(factory, sock=sock))[1]


async def connect(connection: Dict[str, Any], port_name: str) -> socket.socket:
    """Connect to one of the kernel's sockets as ``dial`` does, and return what the loop does not read yet."""
    delay = RETRY
    while True:
        if connection["transport"] == "ipc":
            sock = socket.socket(socket.AF_UNIX)
            address: Any = "%s-%d" % (connection["ip"], connection[port_name])
        else:
            sock = socket.socket(socket.AF_INET)
            address = connection["ip"], connection[port_name]
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, address)
            return sock
        except OSError:
            sock.close()
            await asyncio.sleep(delay)
            delay = min(delay * 1.1, 0.1)
        except BaseException:
            sock.close()
            raise
