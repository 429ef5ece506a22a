"""The publisher: nothing lost for a slow reader, nobody stalled for ever by a dead one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zmq
import zmq.asyncio
from mux_kit import Wire, settled

from elsewhere.agent.zmtp import Subscriber as Reader
from elsewhere.agent.zmtp import encode_message, frames
from elsewhere.publisher import HELD, PATIENCE, Publisher, Subscriber

BIG = 128 * 1024


def message(number: int, size: int = 0, topic: bytes = b"") -> bytes:
    return encode_message([topic, str(number).encode() + b"." * size])


class Home:
    """A publisher, and what it tells its line."""

    def __init__(self) -> None:
        self.receipts: list[int] = []
        self.room = 0
        self.publisher = Publisher(self.receipts.append, self._room)

    def _room(self) -> None:
        self.room += 1

    def publish(self, *numbers: int, size: int = 0, topic: bytes = b"") -> None:
        for number in numbers:
            self.publisher.publish(number, message(number, size, topic))

    def fill(self) -> None:
        """Publish until there is no more room."""
        while not self.publisher.crowded:
            self.publish(self.publisher.last + 1, size=BIG)

    def subscriber(self, *topics: bytes) -> Peer:
        return Peer(self.publisher.connect(), topics or (b"",))


class Peer(Wire):
    """A SUB socket in memory, of which the test decides when it reads."""

    def __init__(self, protocol: Subscriber, topics: tuple[bytes, ...]) -> None:
        super().__init__(protocol)
        self.one = protocol
        self.reader = Reader(topics)
        self._got: list[bytes] = []
        self.begin()
        while True:
            self._read()
            answer = self.reader.outgoing()
            if not answer:
                break
            protocol.data_received(answer)

    def slow(self) -> Peer:
        """It reads nothing until ``quick``."""
        self.unsent = BIG
        self.one.pause_writing()
        return self

    def quick(self) -> None:
        self.unsent = 0
        self.one.resume_writing()

    @property
    def got(self) -> list[bytes]:
        """The messages that came since the last time, each by what is before its dots."""
        self._read()
        got, self._got = self._got, []
        return got

    def _read(self) -> None:
        batch = self.reader.receive(self.take())
        if batch is not None:
            for start, end in zip([0, *batch.ends], batch.ends, strict=False):
                self._got.append(bytes(frames(batch.wire, start, end)[1]).rstrip(b"."))


async def test_all_is_held_for_the_first_subscriber_and_told_as_delivered_only_then() -> None:
    home = Home()
    home.publish(1, 2)
    assert home.receipts == []
    peer = home.subscriber()
    home.publish(3)
    assert peer.got == [b"1", b"2", b"3"]
    assert home.receipts == [2, 3]


async def test_what_is_held_for_the_first_subscriber_is_bounded() -> None:
    home = Home()
    home.fill()
    assert home.publisher.last * BIG < HELD + 2 * BIG
    peer = home.subscriber()
    assert (home.room, home.publisher.crowded) == (1, False)
    assert len(peer.got) == home.publisher.last


async def test_a_second_subscriber_gets_what_is_published_from_then_on() -> None:
    home = Home()
    first = home.subscriber()
    home.publish(1)
    second = home.subscriber()
    home.publish(2)
    assert (first.got, second.got) == ([b"1", b"2"], [b"2"])


async def test_when_all_have_gone_messages_are_dropped_and_count_as_delivered() -> None:
    home = Home()
    home.subscriber().abort()
    await settled()
    home.publish(1, 2)
    assert home.receipts == [1, 2]
    assert home.subscriber().got == []


async def test_a_slow_reader_loses_nothing_and_a_quick_one_goes_on_up_to_the_window() -> None:
    home = Home()
    slow, quick = home.subscriber().slow(), home.subscriber()
    home.fill()
    assert len(quick.got) == home.publisher.last >= HELD // BIG
    assert slow.got == []
    assert home.receipts == []
    slow.quick()
    assert len(slow.got) == home.publisher.last
    assert (home.receipts, home.room) == ([home.publisher.last], 1)


async def test_the_end_of_a_slow_reader_makes_room() -> None:
    home = Home()
    slow, quick = home.subscriber().slow(), home.subscriber()
    home.fill()
    slow.abort()
    await settled()
    assert (home.room, home.publisher.crowded) == (1, False)
    assert not quick.closed


@pytest.mark.looptime
async def test_a_stuck_reader_is_cut_off_when_others_have_waited_long_enough() -> None:
    home = Home()
    stuck, quick = home.subscriber().slow(), home.subscriber()
    home.fill()
    await asyncio.sleep(PATIENCE - 1)
    assert stuck.closed == ""
    await asyncio.sleep(2)
    assert stuck.closed
    assert (home.room, quick.closed) == (1, "")


@pytest.mark.looptime
async def test_who_comes_later_does_not_wait_for_ever_for_one_that_is_stuck() -> None:
    home = Home()
    stuck = home.subscriber().slow()
    home.fill()
    await asyncio.sleep(1000)
    early = stuck.closed
    assert early == "", "it is alone: the kernel's output waits for it"
    quick = home.subscriber()
    await asyncio.sleep(PATIENCE + 1)
    assert (stuck.closed, quick.closed) == ("aborted", "")


@pytest.mark.looptime
async def test_one_that_took_something_and_then_stuck_is_cut_off_too() -> None:
    home = Home()
    stuck, _quick = home.subscriber().slow(), home.subscriber()
    home.fill()
    home.publish(home.publisher.last + 1, home.publisher.last + 2, size=HELD)
    await asyncio.sleep(PATIENCE / 2)

    def full_again(data: bytes) -> None:
        stuck.sent += data
        stuck.slow()

    stuck.write = full_again  # type: ignore[method-assign]
    stuck.quick()
    assert home.publisher.crowded
    await asyncio.sleep(PATIENCE - 1)
    assert stuck.closed == ""
    await asyncio.sleep(2)
    assert stuck.closed


@pytest.mark.looptime
async def test_one_that_reads_slowly_is_not_cut_off() -> None:
    home = Home()
    slow, _quick = home.subscriber().slow(), home.subscriber()
    home.fill()
    for _ in range(10):
        await asyncio.sleep(PATIENCE / 2)
        slow.unsent -= 1
    assert not slow.closed


@pytest.mark.looptime
async def test_nobody_is_cut_off_when_the_others_have_gone() -> None:
    home = Home()
    slow, quick = home.subscriber().slow(), home.subscriber()
    home.fill()
    quick.abort()
    await asyncio.sleep(3 * PATIENCE)
    assert not slow.closed


async def test_topics_are_prefixes() -> None:
    home = Home()
    peer = home.subscriber(b"stream", b"status.")
    for number, topic in enumerate((b"streams", b"display", b"status.busy", b"status"), 1):
        home.publish(number, topic=topic)
    assert peer.got == [b"1", b"3"]
    peer.one.data_received(encode_message([b"\0stream"]))
    home.publish(5, topic=b"streams")
    assert peer.got == []
    assert home.receipts[-1] == 5


async def test_the_kernels_welcome_comes_first_and_once() -> None:
    home = Home()
    early = home.subscriber()
    home.publisher.greet(message(0))
    home.publisher.greet(message(0))
    home.publish(1)
    home.publisher.greet(message(7))
    late = home.subscriber()
    home.publish(2)
    assert early.got == [b"0", b"1", b"2"]
    assert late.got == [b"7", b"2"]


async def test_a_peer_that_is_none_is_closed_and_others_go_on() -> None:
    home = Home()
    good = home.subscriber()
    bad = home.publisher.connect()
    wire = Wire(bad).begin()
    bad.data_received(b"GET / HTTP/1.1\r\n\r\n")
    home.publish(1)
    assert (wire.closed, good.got) == ("aborted", [b"1"])


async def test_close_ends_also_who_has_not_subscribed() -> None:
    home = Home()
    peer = home.subscriber()
    silent = Wire(home.publisher.connect()).begin()
    home.publisher.close()
    assert (peer.closed, silent.closed) == ("aborted", "aborted")


@asynccontextmanager
async def listening(home: Home, path: Path) -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_unix_server(home.publisher.connect, str(path))
    try:
        yield f"ipc://{path}"
    finally:
        server.close()
        home.publisher.close()
        await settled()


async def test_real_sub_sockets_lose_nothing_though_one_does_not_read(tmp_path: Path) -> None:
    home = Home()
    home.publish(1)
    context = zmq.asyncio.Context()
    async with listening(home, tmp_path / "s") as address:
        with context.socket(zmq.SUB) as quick, context.socket(zmq.SUB) as slow:
            for one in (quick, slow):
                one.setsockopt(zmq.RCVHWM, 2)
                one.setsockopt(zmq.LINGER, 0)
            quick.connect(address)
            quick.subscribe(b"")
            assert await quick.recv_multipart() == [b"", b"1"]
            slow.connect(address)
            slow.subscribe(b"")
            while len(home.publisher._subscribers) < 2:
                await asyncio.sleep(0.001)
            number = 1
            while not home.publisher.crowded:
                number += 1
                home.publish(number, size=BIG)
                got = (await asyncio.wait_for(quick.recv_multipart(), 30))[1]
                assert got.rstrip(b".") == str(number).encode()
            assert home.receipts[-1] < number
            heard = [(await slow.recv_multipart())[1].rstrip(b".") for _ in range(number - 1)]
            assert heard == [str(n).encode() for n in range(2, number + 1)]
            assert (home.receipts[-1], home.room) == (number, 1)
    context.term()
