"""The kernel's one subscriber: it never stops reading, so the kernel never drops a message."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Callable, Dict, Optional

from . import message
from .outbox import Outbox
from .zmtp import Subscriber, ZmtpError

RETRY = 0.01


class IopubReader(asyncio.Protocol):
    """From the kernel's iopub socket to the outbox. ``subscribed`` resolves after the handshake,
    ``first`` with the first message.

    A kernel's ``iopub_welcome`` (JEP 65) answers our subscription, not those of the clients at
    home: it is kept in ``welcome`` (base64 of the wire), for home to give to each of them.
    """

    def __init__(self, outbox: Outbox) -> None:
        loop = asyncio.get_running_loop()
        self.subscribed: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.first: asyncio.Future[None] = loop.create_future()
        self.welcome = ""
        self.problem = ""
        self._outbox = outbox
        self._subscriber = Subscriber()
        self._transport: Optional[asyncio.Transport] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.Transport)
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
        if not self.first.done():
            self.first.set_result(None)
            head = message.parts(wire, 0, ends[0])
            if head is not None and head.kind == "iopub_welcome":
                self.welcome = base64.b64encode(wire[: ends[0]]).decode()
                wire, ends = wire[ends[0] :], [end - ends[0] for end in ends[1:]]
        if ends:
            self._outbox.add(wire, ends)

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


async def dial(
    connection: Dict[str, Any], port_name: str, factory: Callable[[], asyncio.Protocol]
) -> asyncio.Protocol:
    """Connect to one of the kernel's sockets; tries until it listens, so cancel it to give up."""
    loop = asyncio.get_running_loop()
    delay = RETRY
    while True:
        try:
            if connection["transport"] == "ipc":
                path = "%s-%d" % (connection["ip"], connection[port_name])
                return (await loop.create_unix_connection(factory, path))[1]
            return (await loop.create_connection(factory, connection["ip"], connection[port_name]))[1]
        except OSError:
            await asyncio.sleep(delay)
            delay = min(delay * 1.1, 0.1)
