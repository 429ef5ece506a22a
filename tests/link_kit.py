"""A proxy between agents and home, with which a test cuts, heals and tears the link."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close break the connection off."""


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Proxy:
    """Forwards TCP from ``port`` to ``target``. ``cut`` and ``heal`` and ``tear`` from any thread.

    ``dials`` counts the connections that were made, ``forwarded`` the bytes that passed.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.dials = 0
        self.forwarded = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()
        self._server: asyncio.Server = self._do(self._open())

    def cut(self) -> None:
        """Pass nothing on, and say nothing of it to either side: a cable that is pulled."""
        self._loop.call_soon_threadsafe(self._whole.clear)

    def heal(self) -> None:
        """Pass on what waits, and go on."""
        self._loop.call_soon_threadsafe(self._whole.set)

    def tear(self) -> None:
        """Break all connections off, with what was on its way."""
        self._do(self._tear())

    def close(self) -> None:
        """Stop."""
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _tear(self) -> None:
        for writer in self._writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    async def _close(self) -> None:
        self._server.close()
        await self._tear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dials += 1
        await self._whole.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.ensure_future(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._whole.wait()
                sink.write(data)
                self.forwarded += len(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(sink)
            sink.transport.abort() if sink.transport.is_closing() else sink.close()


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """A proxy in a thread of its own."""
    one = Proxy(target)
    try:
        yield one
    finally:
        one.close()
