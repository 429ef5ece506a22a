"""Many streams over one asyncio transport: order, windows, ends, keepalive, and limits before trust."""

from __future__ import annotations

import asyncio

import pytest
from mux_kit import Pair, Wire, settled

from elsewhere.agent.mux import CLOSED, LOST, RESET, Mux, Stream, StreamHandler


class Ear(StreamHandler):
    """Notes what it is told, and gives credit at once if it is to."""

    def __init__(self, stream: Stream, *, greedy: bool = True) -> None:
        self.stream = stream
        self.data = b""
        self.ends: list[str] = []
        self.credit = 0
        self.drained = 0
        self.greedy = greedy
        stream.handler = self

    def stream_data(self, data: bytes) -> None:
        self.data += data
        if self.greedy:
            self.stream.consumed(len(data))

    def stream_credit(self, delta: int) -> None:
        self.credit += delta

    def stream_drained(self) -> None:
        self.drained += 1

    def stream_ended(self, how: str) -> None:
        self.ends.append(how)


async def opened(pair: Pair, *, greedy: bool = True) -> tuple[Ear, Ear]:
    near = Ear(pair.home.open())
    await pair.carry()
    (stream,) = pair.to_agent
    return near, Ear(stream, greedy=greedy)


async def test_what_is_written_in_one_turn_leaves_in_one_write() -> None:
    pair = Pair()
    near, far = await opened(pair)
    for word in (b"a", b"b", b"c"):
        near.stream.write(word)
    assert not pair.home_wire.sent
    await settled()
    assert pair.home_wire.sent
    await pair.carry()
    assert far.data == b"abc"


async def test_the_window_holds_back_and_credit_drains_the_queue() -> None:
    pair = Pair()
    near, far = await opened(pair, greedy=False)
    content = bytes(range(256)) * 4096  # 1 MiB
    near.stream.write(content)
    await pair.carry()
    assert len(far.data) == 262144
    assert near.stream.queued == len(content) - 262144
    assert near.drained == 0
    far.greedy = True
    far.stream.consumed(len(far.data))
    await pair.carry()
    assert far.data == content
    assert (near.stream.queued, near.drained) == (0, 1)
    assert len(content) - 131072 <= near.credit <= len(content)


async def test_close_comes_after_all_that_was_written() -> None:
    pair = Pair()
    near, far = await opened(pair, greedy=False)
    near.stream.write(b"x" * 300_000)
    near.stream.close()
    near.stream.write(b"too late")
    await pair.carry()
    assert far.ends == []
    far.greedy = True
    far.stream.consumed(len(far.data))
    await pair.carry()
    assert (far.data, far.ends) == (b"x" * 300_000, [CLOSED])
    far.stream.write(b"still open this way")
    far.stream.close()
    await pair.carry()
    assert (near.data, near.ends) == (b"still open this way", [CLOSED])


async def test_reset_drops_both_ways_and_others_go_on() -> None:
    pair = Pair()
    near, far = await opened(pair)
    other = Ear(pair.home.open())
    await pair.carry()
    far.stream.reset()
    near.stream.write(b"crossing it")
    other.stream.write(b"on")
    other_far = Ear(pair.to_agent[1])
    await pair.carry()
    assert (near.ends, far.ends, far.data) == ([RESET], [], b"")
    assert other_far.data == b"on"
    near.stream.write(b"nobody")
    near.stream.close()
    assert near.stream.queued == 0


async def test_the_loss_is_told_to_each_stream_and_once_to_the_owner() -> None:
    pair = Pair()
    near, far = await opened(pair)
    pair.home.abort("why")
    await pair.tear()
    assert (near.ends, far.ends) == ([LOST], [LOST])
    assert sorted(pair.lost) == ["the far side closed the connection", "why"]
    near.stream.write(b"x")
    near.stream.consumed(1)
    near.stream.close()
    near.stream.reset()


async def test_drop_tells_everybody_before_it_returns_and_hears_no_more() -> None:
    pair = Pair()
    near, far = await opened(pair)
    far.stream.write(b"on its way")
    await settled()
    pair.home.drop("superseded")
    assert (near.ends, pair.lost) == ([LOST], ["superseded"])
    await pair.carry()
    assert (near.data, near.ends, pair.lost) == (b"", [LOST], ["superseded"])


async def test_after_abort_and_close_nothing_more_is_heard() -> None:
    for how in ("abort", "close"):
        pair = Pair()
        near, far = await opened(pair)
        far.stream.write(b"on its way")
        await settled()
        getattr(pair.home, how)("enough")
        pair.home.data_received(pair.agent_wire.take())
        assert near.data == b""


async def test_close_lets_go_what_is_queued() -> None:
    pair = Pair()
    near, far = await opened(pair)
    near.stream.write(b"goodbye")
    pair.home.close("done")
    await pair.carry()
    assert (far.data, pair.home_wire.closed) == (b"goodbye", "closed")


async def test_garbage_ends_the_connection_with_a_reason() -> None:
    pair = Pair()
    pair.home.data_received(b"GET / HTTP/1.1\r\n\r\n")
    await settled()
    assert pair.home_wire.closed == "aborted"
    assert "protocol error" in pair.lost[0]


async def test_a_stranger_is_heard_to_a_limit_whatever_he_says() -> None:
    lost: list[str] = []
    mux = Mux(client=False, accept=lambda stream: None, lost=lost.append, trust=100)
    wire = Wire(mux).begin()
    ping = b"\0\2\0\1" + bytes(8)
    for _ in range(8):
        mux.data_received(ping)
    await settled()
    assert not wire.closed
    mux.data_received(ping)
    await settled()
    assert (wire.closed, lost) == (
        "aborted",
        ["more than 100 bytes from somebody who has not said who it is"],
    )


async def test_aborted_before_it_was_made_it_is_never_begun() -> None:
    lost: list[str] = []
    mux = Mux(client=True, accept=lambda stream: None, lost=lost.append)
    mux.abort("too late")
    wire = Wire(mux).begin()
    await settled()
    assert (wire.closed, lost, bytes(wire.sent)) == ("aborted", [], b"")


@pytest.mark.looptime
async def test_a_silent_connection_is_asked_and_a_dead_one_given_up() -> None:
    pair = Pair(keepalive=10.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(20):
        await asyncio.sleep(5)
        await pair.carry()
    assert pair.lost == [], "pings are answered"
    while not pair.lost:
        await asyncio.sleep(1)  # nothing is carried any more
    assert 130 <= loop.time() - began <= 142
    assert pair.lost[0] == "nothing heard for 30 s"
