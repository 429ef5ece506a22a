"""The pump between a socket and a protocol: plain bytes in order, turns for handshakes, and every end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent_kit import IDENTITY, until
from elsewhere import tls
from elsewhere.tls import BEFORE_TLS, RECORD, Pump, Pumps

CLIENT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CLIENT.load_verify_locations(cadata=IDENTITY.authority)
MUCH = bytes(range(256)) * 8192


class Echo(asyncio.Protocol):
    """Says back what it hears, and notes its life."""

    def __init__(self) -> None:
        self.heard = 0
        self.ends: list[Exception | None] = []
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.heard += len(data)
        self.transport.writelines([data[:10], data[10:]])

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append(exc)


@dataclass
class Served:
    port: int
    echoes: list[Echo] = field(default_factory=list)
    pumps: list[Pump] = field(default_factory=list)
    failures: int = 0


@asynccontextmanager
async def serving(short: Path) -> AsyncIterator[Served]:
    pumps = Pumps(IDENTITY.server_context(short))
    served = Served(0)

    def failed() -> None:
        served.failures += 1

    def answer() -> Pump:
        served.echoes.append(Echo())
        served.pumps.append(Pump(pumps, served.echoes[-1], failed))
        return served.pumps[-1]

    server = await asyncio.get_running_loop().create_server(answer, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()


async def dialled(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection whose far side is ready too: before that it takes no more than a hello."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", served.port, ssl=CLIENT, server_hostname=IDENTITY.name
    )
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    return reader, writer


@pytest.mark.parametrize("size", [1, RECORD - 1, RECORD, RECORD + 1, len(MUCH)])
async def test_what_is_sent_comes_back(short: Path, size: int) -> None:
    async with serving(short) as served:
        reader, writer = await dialled(served)
        writer.write(MUCH[:size])
        assert await reader.readexactly(size) == MUCH[:size]
        writer.close()
        await until(lambda: served.echoes[0].ends == [None], "the end is told once")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def test_many_at_once_share_the_buffers_and_nothing_else(short: Path) -> None:
    async with serving(short) as served:

        async def talk(number: int) -> None:
            reader, writer = await dialled(served)
            text = bytes([number]) * 300_000
            writer.write(text)
            assert await reader.readexactly(len(text)) == text
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

        await asyncio.gather(*map(talk, range(20)))


async def test_a_polite_end_is_told_to_the_far_side(short: Path) -> None:
    async with serving(short) as served:
        reader, writer = await dialled(served)
        transport = served.echoes[0].transport
        assert transport is not None
        transport.write(MUCH)
        transport.close()
        assert transport.is_closing()
        transport.write(b"nobody sends this")
        assert await reader.read() == MUCH
        await until(lambda: served.echoes[0].ends == [None], "the end is told once")
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def test_what_is_known_of_the_connection_can_be_asked(short: Path) -> None:
    async with serving(short) as served:
        _, writer = await dialled(served)
        transport = served.echoes[0].transport
        assert transport is not None
        assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert transport.get_extra_info("peername")[0] == "127.0.0.1"
        transport.abort()
        await until(lambda: served.echoes[0].ends, "the end is told")
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", b"", b"\x16\x03\x01\xff\xff" + bytes(BEFORE_TLS)]
)
async def test_who_speaks_no_tls_is_hung_up_on(short: Path, sent: bytes) -> None:
    async with serving(short) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(sent)
        if not sent:
            writer.close()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        await until(lambda: served.failures == 1, "the failure is told")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        assert served.echoes[0].transport is None
        assert served.echoes[0].ends == []


async def test_handshakes_that_take_long_leave_turns_to_others(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "BUDGET", 0.0)
    pumps = Pumps(IDENTITY.server_context(short))
    order: list[str] = []

    class Costly(Pump):
        def shake(self) -> None:
            order.append("handshake")

    for _ in range(3):
        pumps.shake_soon(Costly(pumps, Echo(), lambda: None))
    for _ in range(4):
        await asyncio.sleep(0)
        order.append("other")
    assert order[:5] == ["handshake", "other", "handshake", "other", "handshake"]


async def test_a_connection_that_is_over_is_held_by_nobody(short: Path) -> None:
    """Python need not look for it: with thousands of kernels it seldom does."""
    async with serving(short) as served:
        _, writer = await dialled(served)
        raw = await asyncio.open_connection("127.0.0.1", served.port)
        await until(lambda: len(served.echoes) == 2, "both are connected")
        gone: list[weakref.ref[Any]] = [*map(weakref.ref, served.echoes), *map(weakref.ref, served.pumps)]
        for one in (writer, raw[1]):
            one.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await one.wait_closed()
        await until(lambda: served.failures == 1 and served.echoes[0].ends, "both ends are told")
        gc.disable()
        try:
            served.echoes[0].transport = None
            served.echoes.clear()
            served.pumps.clear()
            await until(lambda: not any(ref() for ref in gone), "nothing is left of them", 5)
        finally:
            gc.enable()
