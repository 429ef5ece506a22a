"""The yamux session alone: what it refuses, what it forgets, and that nothing is lost."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.agent.yamux import (
    Closed,
    Credit,
    Data,
    Event,
    GoneAway,
    NoMoreStreams,
    Opened,
    Pong,
    Reset,
    Session,
    Widened,
    YamuxError,
)

KIB = 1024
DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


def frame(kind: int, flags: int, stream: int, length: int, *, version: int = 0) -> bytes:
    return struct.pack(">BBHII", version, kind, flags, stream, length)


def taken(session: Session) -> bytes:
    return b"".join(session.outgoing())


def pair(**server: int) -> tuple[Session, Session, int]:
    """Return two sessions, and a stream that the client opened."""
    a, b = Session(client=True), Session(client=False, **server)
    stream = a.open()
    b.receive(taken(a))
    a.receive(taken(b))
    return a, b, stream


def shown(events: list[Event]) -> list[str]:
    """Return events so that they compare with their types: they are tuples."""
    return [repr(event) for event in events]


def kept(session: Session) -> int:
    """Return how many bytes of its peer's the session holds."""
    return len(session._head)


def test_credit_is_returned_once_half_of_the_window_is_due() -> None:
    a, b, stream = pair()
    assert a.writable(stream) == 256 * KIB
    assert a.send(stream, bytes(300 * KIB)) == 256 * KIB
    assert a.writable(stream) == 0
    assert a.send(stream, b"more") == 0
    events = b.receive(taken(a))
    assert sum(len(event.data) for event in events if isinstance(event, Data)) == 256 * KIB

    b.consumed(stream, 128 * KIB - 1)
    assert taken(b) == b""
    b.consumed(stream, 1)
    assert shown(a.receive(taken(b))) == shown([Credit(stream, 128 * KIB)])
    assert a.writable(stream) == 128 * KIB
    b.consumed(stream, 5)
    b.flush_credit(stream)
    b.flush_credit(stream)
    assert shown(a.receive(taken(b))) == shown([Credit(stream, 5)])
    with pytest.raises(ValueError, match="consumed"):
        b.consumed(stream, 128 * KIB)


def test_a_larger_window_is_no_acknowledgement() -> None:
    a, b = Session(client=True, window=512 * KIB), Session(client=False, window=1024 * KIB)
    first = a.open()
    second = a.open(window=300 * KIB)
    assert a.send(first, b"early") == 5
    assert shown(b.receive(taken(a))) == shown([
        Opened(first),
        Widened(first, 256 * KIB),
        Opened(second),
        Widened(second, 44 * KIB),
        Data(first, b"early"),
    ])  # fmt: skip
    assert shown(a.receive(taken(b))) == shown([Widened(first, 768 * KIB), Widened(second, 768 * KIB)])
    assert (b.writable(first), b.writable(second)) == (512 * KIB, 300 * KIB)
    assert a.writable(first) == 1024 * KIB - 5
    # A peer that widens later cannot be told from one that consumes, but for what we have not sent.
    assert shown(a.receive(frame(WINDOW, 0, first, 7))) == shown([Credit(first, 5), Widened(first, 2)])


def test_large_data_goes_out_in_frames_and_is_not_copied() -> None:
    a = Session(client=True, max_frame=100_000)
    stream = a.open()
    a.outgoing()
    payload = bytes(250_000)
    assert a.send(stream, payload) == 250_000
    buffers = a.outgoing()
    assert [len(buffer) for buffer in buffers] == [12, 100_000, 12, 100_000, 12, 50_000]
    assert all(buffer.obj is payload for buffer in buffers[1::2] if isinstance(buffer, memoryview))
    assert a.outgoing() == []


def test_half_a_close_leaves_the_other_half() -> None:
    a, b, stream = pair()
    a.send(stream, b"last words")
    a.close(stream)
    a.close(stream)
    assert a.writable(stream) == 0
    assert shown(b.receive(taken(a))) == shown([Data(stream, b"last words"), Closed(stream)])
    b.send(stream, b"answer")
    b.consumed(stream, 10)
    b.close(stream)  # what is consumed is acknowledged before the end
    assert shown(a.receive(taken(b))) == shown([Data(stream, b"answer"), Credit(stream, 10), Closed(stream)])
    # Over: calls do nothing, late frames are ignored.
    for session in (a, b):
        session.consumed(stream, 6)
        session.flush_credit(stream)
        session.close(stream)
        session.reset(stream)
        assert session.send(stream, b"x") == 0
        late = (
            frame(WINDOW, 0, stream, 9) + frame(DATA, FIN, stream, 3) + b"abc" + frame(WINDOW, RST, stream, 0)
        )
        assert shown(session.receive(late)) == shown([])
        assert taken(session) == b""


def test_a_reset_ends_both_halves_even_within_a_frame() -> None:
    a, b, stream = pair()
    a.send(stream, b"0123456789" * 1000)
    wire = taken(a)
    assert shown(b.receive(wire[:20])) == shown([Data(stream, b"01234567")])
    b.reset(stream)
    assert shown(b.receive(wire[20:] + frame(PING, SYN, 0, 3))) == shown([])
    assert shown(a.receive(taken(b))) == shown([Reset(stream), Pong(3)])
    assert a.writable(stream) == 0


def test_pings_are_answered_and_refusals_sent() -> None:
    a, b, _ = pair()
    assert (a.ping(), a.ping()) == (0, 1)
    assert shown(b.receive(taken(a))) == shown([])
    assert shown(a.receive(taken(b))) == shown([Pong(0), Pong(1)])
    b.go_away(0)
    late = a.open()
    assert shown(b.receive(taken(a))) == shown([])
    assert shown(a.receive(taken(b))) == shown([GoneAway(0), Reset(late)])
    with pytest.raises(NoMoreStreams, match="goes away"):
        a.open()


def test_streams_are_counted_and_places_come_free() -> None:
    a = Session(client=True, max_streams=2)
    first = a.open()
    a.open()
    with pytest.raises(NoMoreStreams, match="2 streams"):
        a.open()
    a.reset(first)
    a.open()
    b = Session(client=False, max_streams=2)
    assert shown(b.receive(taken(a))) == shown([Opened(1), Opened(3), Reset(1), Opened(5)])


def test_streams_may_be_opened_out_of_order() -> None:
    b = Session(client=False)
    events = b.receive(b"".join(frame(WINDOW, SYN, stream, 0) for stream in (3, 1, 9, 7)))
    assert shown(events) == shown([Opened(3), Opened(1), Opened(9), Opened(7)])
    with pytest.raises(YamuxError, match="never opened"):
        b.receive(frame(WINDOW, 0, 5, 1))


HUGE = 1 << 30


@pytest.mark.parametrize(
    ("garbage", "words"),
    [
        (frame(DATA, 0, 1, 1, version=1), "not a frame"),
        (frame(4, 0, 1, 1), "not a frame"),
        (frame(DATA, 16, 1, 1), "not a frame"),
        (b"HTTP/1.1 400 Bad Request", "not a frame"),
        (frame(DATA, 0, 1, HUGE), "allowed"),
        (frame(DATA, 0, 1, 262145), "allowed"),
        (frame(DATA, SYN, 3, HUGE), "allowed"),
        (frame(WINDOW, RST, 1, 0) + frame(DATA, 0, 1, HUGE), "over"),
        (frame(DATA, 0, 3, 1), "never opened"),
        (frame(WINDOW, RST, 2, 0), "never opened"),
        (frame(DATA, 0, 0, 1), "never opened"),
        (frame(WINDOW, SYN, 0, 1), "not its own"),
        (frame(WINDOW, SYN, 2, 0), "not its own"),
        (frame(WINDOW, SYN, 1, 0), "twice"),
        (frame(WINDOW, RST, 1, 0) + frame(WINDOW, SYN, 1, 0), "twice"),
        (frame(WINDOW, SYN, 0xFFFFFFFF, 0), "after 1"),
        (b"".join(frame(WINDOW, SYN, stream, 0) for stream in range(3, 13, 2)), "more than 4"),
        (frame(WINDOW, ACK, 1, 0), "did not wait"),
        (frame(WINDOW, 0, 1, 0xFFFFFFFF), "larger than any"),
        (frame(WINDOW, FIN, 1, 0) * 2, "closed stream 1 twice"),
        (frame(WINDOW, FIN, 1, 0) + frame(DATA, 0, 1, 1), "after its end"),
        (frame(PING, SYN, 1, 0), "names stream"),
        (frame(PING, 0, 0, 0), "ping"),
        (frame(PING, SYN, 0, 0) * 5000, "answers"),
    ],
)
def test_what_the_protocol_forbids_is_an_error(garbage: bytes, words: str) -> None:
    _, b, _ = pair(max_streams=4)
    with pytest.raises(YamuxError, match=words):
        b.receive(garbage)
    assert kept(b) < 12
    assert taken(b).endswith(frame(GO_AWAY, 0, 0, 1))
    with pytest.raises(YamuxError, match=words):
        b.receive(b"")


def test_settings_that_the_protocol_cannot_have() -> None:
    with pytest.raises(ValueError, match="window"):
        Session(client=True, window=1000)
    with pytest.raises(ValueError, match="window"):
        Session(client=True).open(window=1 << 32)
    with pytest.raises(ValueError, match="max_frame"):
        Session(client=True, max_frame=0)


@settings(deadline=None)
@given(
    data=st.lists(
        st.binary(max_size=40)
        | st.builds(
            frame,
            st.integers(0, 3),
            st.integers(0, 15),
            st.integers(0, 9),
            st.integers(0, 20) | st.integers(0, 0xFFFFFFFF),
        )
    )
)
def test_arbitrary_bytes_raise_nothing_else_and_are_not_kept(data: list[bytes]) -> None:
    session = Session(client=False, max_streams=3)
    session.open()
    for chunk in data:
        try:
            session.receive(chunk)
        except YamuxError:
            pass
        assert kept(session) < 12
    assert len(session._streams) <= 4
    assert len(session._skipped) <= 3
    assert len(taken(session)) <= 12 * (len(data) * 5 + 2)


def merged(events: list[Event]) -> list[Event]:
    """Return the events with neighbouring Data of one stream joined."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, Data) and isinstance(last, Data) and last.stream_id == event.stream_id:
            out[-1] = Data(event.stream_id, last.data + event.data)
        else:
            out.append(event)
    return out


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 2000), max_size=30))
def test_any_fragmentation_means_the_same(cuts: list[int]) -> None:
    a = Session(client=True, window=300 * KIB)
    one, two = a.open(), a.open()
    for size in (1, 300, 1200):
        a.send(one, bytes(range(256)) * 5 + bytes(size))
        a.send(two, b"x" * size)
    a.ping()
    a.close(one)
    a.send(two, b"y" * 50)
    a.reset(two)
    a.go_away(0)
    wire = taken(a) + frame(DATA, SYN | FIN, 5, 4) + b"tail"

    whole, pieces = Session(client=False), Session(client=False)
    events: list[Event] = []
    position = 0
    for cut in [*cuts, len(wire)]:
        events += pieces.receive(wire[position : position + cut])
        position += cut
    assert shown(merged(events)) == shown(merged(whole.receive(wire)))
    assert shown(merged(events)[-2:]) == shown([Data(5, b"tail"), Closed(5)])
    assert taken(pieces) == taken(whole)


class End:
    """One end of a conversation: what it sent, what it got, and what it has not consumed."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.wire = bytearray()  # on its way to this end
        self.sent: dict[int, bytearray] = {}
        self.got: dict[int, bytearray] = {}
        self.credited: dict[int, int] = {}
        self.unconsumed: dict[int, int] = {}
        self.closed: set[int] = set()
        self.closing: set[int] = set()

    def known(self, stream: int) -> None:
        self.sent[stream], self.got[stream] = bytearray(), bytearray()
        self.credited[stream] = self.unconsumed[stream] = 0

    def hear(self, size: int) -> None:
        data = bytes(self.wire[:size])
        del self.wire[:size]
        for event in self.session.receive(data):
            if isinstance(event, Opened):
                self.known(event.stream_id)
            elif isinstance(event, Data):
                self.got[event.stream_id] += event.data
                self.unconsumed[event.stream_id] += len(event.data)
            elif isinstance(event, Credit):
                self.credited[event.stream_id] += event.delta
            elif isinstance(event, Closed):
                self.closed.add(event.stream_id)

    def consume(self, stream: int, n: int) -> None:
        self.session.consumed(stream, n)
        self.unconsumed[stream] -= n


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 1 << 32), window=st.integers(256 * KIB, 600 * KIB), steps=st.integers(10, 150))
def test_two_sessions_lose_nothing_whatever_the_order(seed: int, window: int, steps: int) -> None:
    choose = random.Random(seed)  # one seed, for hypothesis is slow at so many draws
    a, b = End(Session(client=True, window=window, max_frame=60_000)), End(Session(client=False))
    windows = {a: window, b: 256 * KIB}

    def flush(end: End, other: End) -> None:
        other.wire += b"".join(end.session.outgoing())

    for _ in range(steps):
        end, other = choose.choice([(a, b), (b, a)])
        action = choose.randrange(8)
        streams = sorted(end.sent)
        if action == 0 and len(streams) < 6:
            end.known(end.session.open())
        elif action <= 3 and streams:
            stream = choose.choice(streams)
            data = choose.randbytes(choose.choice([1, 100, 20_000, 200_000]))
            writable = end.session.writable(stream)
            count = end.session.send(stream, memoryview(data))
            assert count == min(len(data), writable)
            end.sent[stream] += data[:count]
        elif action == 4 and streams:
            stream = choose.choice(streams)
            end.consume(stream, choose.randint(0, end.unconsumed[stream]))
            if choose.random() < 0.5:
                end.session.flush_credit(stream)
        elif action == 5 and streams and choose.random() < 0.2:
            end.session.close(stream := choose.choice(streams))
            end.closing.add(stream)
        else:
            end.hear(choose.choice([1, 11, 5000, 1 << 20]))
        flush(end, other)
        for stream, size in end.unconsumed.items():
            assert size <= windows[end], stream
        assert all(end.credited[stream] <= len(end.sent[stream]) for stream in end.sent)

    while a.wire or b.wire or any(a.unconsumed.values()) or any(b.unconsumed.values()):
        for end, other in ((a, b), (b, a)):
            end.hear(len(end.wire))
            for stream in end.unconsumed:
                end.consume(stream, end.unconsumed[stream])
                end.session.flush_credit(stream)
            flush(end, other)
    assert a.sent == b.got
    assert b.sent == a.got
    assert (a.closed, b.closed) == (b.closing, a.closing)
    for end, other in ((a, b), (b, a)):
        for stream in end.sent:
            over = stream in a.closing and stream in b.closing
            assert over == (stream not in end.session._streams)
            if not over:
                assert end.credited[stream] == len(end.sent[stream])
                assert end.session.writable(stream) in (0, windows[other])
