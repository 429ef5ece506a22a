"""Listening goes on, whatever a single connection brings."""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import closing

import pytest

from agent_kit import until
from elsewhere import listening
from elsewhere.listening import Listening


class Greeter(asyncio.Protocol):
    """Says hello and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


async def heard(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
        await writer.wait_closed()


async def no_wait() -> None:
    """There is room."""


async def test_a_fault_with_one_caller_is_told_and_the_next_is_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = iter([False, True])

    def answer() -> asyncio.Protocol:
        if not next(answers):
            raise RuntimeError("a fault")
        return Greeter()

    one = Listening(no_wait, answer)
    port = await one.open("127.0.0.1", 0)
    try:
        assert await heard(port) == b""
        assert "could not be taken in" in caplog.text
        assert await heard(port) == b"hello"
    finally:
        await one.aclose()


async def test_no_file_left_is_told_and_tried_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    accept, failures = loop.sock_accept, iter([True])

    async def accepts(listening: socket.socket) -> tuple[socket.socket, object]:
        if next(failures, False):
            raise OSError(errno.EMFILE, "Too many open files")
        return await accept(listening)

    monkeypatch.setattr(loop, "sock_accept", accepts)
    monkeypatch.setattr(listening, "RETRY", 0)
    one = Listening(no_wait, Greeter)
    port = await one.open("127.0.0.1", 0)
    try:
        assert await heard(port) == b"hello"
        assert "Too many open files" in caplog.text
    finally:
        await one.aclose()


async def test_nobody_is_accepted_while_there_is_no_room() -> None:
    room = asyncio.Event()
    greeted: list[Greeter] = []

    async def wait() -> None:
        await room.wait()

    def answer() -> Greeter:
        greeted.append(Greeter())
        return greeted[-1]

    one = Listening(wait, answer)
    port = await one.open("127.0.0.1", 0)
    with closing(socket.create_connection(("127.0.0.1", port))):
        for _ in range(20):
            await asyncio.sleep(0)
        assert greeted == []
        room.set()
        await until(lambda: greeted, "who waited is accepted")
    await one.aclose()


async def test_a_taken_port_is_an_error_and_leaves_nothing_open() -> None:
    one, other = Listening(no_wait, Greeter), Listening(no_wait, Greeter)
    port = await one.open("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        await other.open("127.0.0.1", port)
    await other.aclose()
    await one.aclose()
