"""The agent's sockets to a kernel, with real ROUTER sockets of libzmq at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio

from agent_kit import until
from elsewhere.agent.dealer import CHANNELS, Dealers
from elsewhere.agent.zmtp import encode_message, frames


class Routers:
    """A kernel's sockets; each answers as the test says."""

    def __init__(self, directory: Path) -> None:
        self.context = zmq.asyncio.Context()
        self.sockets: dict[str, Any] = {}
        self.connection: dict[str, Any] = {"transport": "ipc", "ip": str(directory / "k")}
        for port, channel in enumerate(CHANNELS, 1):
            self.connection[f"{channel}_port"] = port

    def bind(self, *channels: str) -> None:
        for channel in channels:
            socket = self.sockets[channel] = self.context.socket(zmq.ROUTER)
            socket.linger = 0
            port = self.connection[f"{channel}_port"]
            socket.bind(f"ipc://{self.connection['ip']}-{port}")

    async def asked(self, channel: str) -> list[bytes]:
        parts: list[bytes] = await asyncio.wait_for(self.sockets[channel].recv_multipart(), 20)
        return parts

    def close(self) -> None:
        self.context.destroy(linger=0)


class Heard:
    def __init__(self) -> None:
        self.messages: list[tuple[str, list[bytes]]] = []
        self.rooms = 0

    def __call__(self, channel: str, wire: bytes, ends: list[int]) -> None:
        start = 0
        for end in ends:
            self.messages.append((channel, [bytes(one) for one in frames(wire, start, end)]))
            start = end

    def room(self) -> None:
        self.rooms += 1


@pytest.fixture
async def routers(short: Path) -> AsyncIterator[Routers]:
    one = Routers(short)
    yield one
    one.close()


async def test_requests_and_replies_pass_on_each_channel_under_one_identity(routers: Routers) -> None:
    routers.bind(*CHANNELS)
    heard = Heard()
    dealers = Dealers(routers.connection, heard, heard.room)
    identities = set()
    for channel in CHANNELS:
        dealers.send(channel, encode_message([b"ask", b"x" * 100_000]))
        identity, *parts = await routers.asked(channel)
        assert parts == [b"ask", b"x" * 100_000]
        identities.add(identity)
        await routers.sockets[channel].send_multipart([identity, b"answer", channel.encode()])
    await until(lambda: len(heard.messages) == 3, "three answers")
    assert heard.messages == [(channel, [b"answer", channel.encode()]) for channel in CHANNELS]
    assert len(identities) == 1, "a kernel asks for input on stdin who asked on shell"
    dealers.close()


async def test_shell_waits_until_stdin_is_known(routers: Routers) -> None:
    routers.bind("shell", "control")
    heard = Heard()
    dealers = Dealers(routers.connection, heard, heard.room)
    dealers.send("shell", encode_message([b"input()"]))
    dealers.send("control", encode_message([b"now"]))
    identity, *_ = await routers.asked("control")
    assert not dealers._open
    routers.bind("stdin")
    await routers.asked("shell")
    await routers.sockets["stdin"].send_multipart([identity, b"name?"])
    await until(lambda: heard.messages, "the question")
    assert heard.messages == [("stdin", [b"name?"])]
    dealers.close()


async def test_requests_wait_for_a_kernel_that_does_not_listen_yet(routers: Routers) -> None:
    heard = Heard()
    dealers = Dealers(routers.connection, heard, heard.room)
    for number in range(100):
        dealers.send("shell", encode_message([b"%d" % number]))
    routers.bind(*CHANNELS)
    assert [(await routers.asked("shell"))[1] for _ in range(100)] == [b"%d" % i for i in range(100)]
    assert not dealers.over
    dealers.close()


async def test_the_end_of_the_kernel_is_seen(routers: Routers) -> None:
    routers.bind(*CHANNELS)
    heard = Heard()
    dealers = Dealers(routers.connection, heard, heard.room)
    dealers.send("shell", encode_message([b"x"]))
    await routers.asked("shell")
    routers.close()
    await until(lambda: dealers.over, "the connections are lost")
    dealers.send("shell", encode_message([b"to nobody"]))
    dealers.close()


async def test_closed_before_it_was_connected(routers: Routers) -> None:
    heard = Heard()
    dealers = Dealers(routers.connection, heard, heard.room)
    dealers.send("shell", encode_message([b"x"]))
    dealers.close()
    routers.bind(*CHANNELS)
    await asyncio.gather(*dealers._tasks, return_exceptions=True)
    assert heard.messages == []
