"""Listening that takes in no more connections than can be served: the others wait in the system's queue."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

BACKLOG = 4096
"""Connections that wait to be accepted at most, where the system allows as many (``net.core.somaxconn``)."""
RETRY = 1.0
"""Seconds until the next try, where the system has no file left for another connection."""

logger = logging.getLogger(__name__)


class Listening:
    """``room`` returns when another connection may be accepted; ``answer`` makes the protocol of each."""

    def __init__(
        self, room: Callable[[], Awaitable[None]], answer: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self._room = room
        self._answer = answer
        self._sockets: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, host: str, port: int) -> int:
        """Listen on all addresses of this host, and return the port of the first. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, address in dict.fromkeys((one[0], one[4]) for one in found):
                self._sockets.append(_listening(family, address))
        except BaseException:
            self._close_sockets()
            raise
        self._tasks = [loop.create_task(self._accept(one)) for one in self._sockets]
        bound: int = self._sockets[0].getsockname()[1]
        return bound

    async def aclose(self) -> None:
        """Listen no more. Connections that were accepted go on."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._close_sockets()

    def _close_sockets(self) -> None:
        for one in self._sockets:
            one.close()
        self._sockets.clear()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room()
            try:
                connection, _ = await loop.sock_accept(listening)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                logger.error("cannot accept another connection now: %s", error)
                await asyncio.sleep(RETRY)
                continue
            try:
                await loop.connect_accepted_socket(self._answer, connection)
            except Exception:  # whatever is wrong with one caller: the others shall be heard
                logger.exception("a connection could not be taken in")
                connection.close()


def _listening(family: int, address: Any) -> socket.socket:
    # Named, the protocol is known of what is accepted too: asyncio sets TCP_NODELAY only where it is.
    one = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.setblocking(False)
        one.bind(address)
        one.listen(BACKLOG)
    except BaseException:
        one.close()
        raise
    return one
