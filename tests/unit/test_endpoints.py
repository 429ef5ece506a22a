"""The unix sockets that are given to jupyter_client, and their links that it removes."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from elsewhere.endpoints import CHANNELS, Endpoints
from elsewhere.errors import ElsewhereError
from elsewhere.rundir import LONGEST_SOCKET_PATH


class Greeter(asyncio.Protocol):
    """Says which channel was asked for."""

    def __init__(self, channel: str) -> None:
        self.channel = channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self.channel.encode())
        transport.close()


async def asked(endpoints: Endpoints, channel: str) -> str:
    reader, writer = await asyncio.open_unix_connection(
        f"{endpoints.ip}-{endpoints.ports[f'{channel}_port']}"
    )
    try:
        return (await reader.read()).decode()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_each_channel_has_a_socket_and_nothing_is_left(short: Path) -> None:
    endpoints = Endpoints(short, Greeter)
    await endpoints.open()
    assert [await asked(endpoints, channel) for channel in CHANNELS] == list(CHANNELS)
    assert stat.S_IMODE(Path(endpoints.ip).parent.stat().st_mode) == 0o700
    endpoints.close()
    endpoints.close()
    assert list(short.iterdir()) == []


async def test_links_that_stock_clean_up_removed_are_made_anew(short: Path) -> None:
    endpoints = Endpoints(short, Greeter)
    await endpoints.open()
    for port in endpoints.ports.values():
        os.remove(f"{endpoints.ip}-{port}")
    with pytest.raises(FileNotFoundError):
        await asked(endpoints, "shell")
    endpoints.publish()
    endpoints.publish()
    assert await asked(endpoints, "shell") == "shell"
    endpoints.close()


async def test_two_kernels_do_not_meet(short: Path) -> None:
    one, other = Endpoints(short, Greeter), Endpoints(short, lambda channel: Greeter("other " + channel))
    await one.open()
    await other.open()
    one.close()
    assert await asked(other, "hb") == "other hb"
    other.close()


async def test_a_path_at_the_limit_works_and_one_beyond_is_told(short: Path) -> None:
    used = len(str(short)) + len("/") + len("/12345678/k-1")
    fitting = short / ("x" * (LONGEST_SOCKET_PATH - used))
    fitting.mkdir()
    endpoints = Endpoints(fitting, Greeter)
    await endpoints.open()
    assert await asked(endpoints, "shell") == "shell"
    endpoints.close()
    for name in (fitting.name + "x", "ü" * (len(fitting.name) // 2 + 1)):
        with pytest.raises(ElsewhereError, match="too long for unix sockets; set XDG_RUNTIME_DIR"):
            Endpoints(short / name, Greeter)


async def test_a_directory_that_cannot_be_made_leaves_no_socket(short: Path) -> None:
    endpoints = Endpoints(short / "none", Greeter)
    with pytest.raises(FileNotFoundError):
        await endpoints.open()
    endpoints.close()
