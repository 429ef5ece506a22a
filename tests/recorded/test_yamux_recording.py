"""Our yamux in the place of either end of a conversation that Go's implementation had with itself."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from elsewhere.agent.yamux import Closed, Credit, Data, Event, GoneAway, Opened, Pong, Reset, Session, Widened

HEADER = struct.Struct(">BBHII")
DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


def entries() -> Iterator[tuple[str, bytes]]:
    """Yield who wrote, and what, in the order of the conversation (see main.go)."""
    journal = gzip.decompress((Path(__file__).parent / "yamux" / "conversation.gz").read_bytes())
    position = 0
    while position < len(journal):
        (length,) = struct.unpack_from(">I", journal, position + 1)
        yield chr(journal[position]), journal[position + 5 : position + 5 + length]
        position += 5 + length


class Replay:
    """Does with a Session what one of Go's ends did, and demands the bytes that it wrote."""

    def __init__(self, role: str, cut: int) -> None:
        # Go's server was set to windows of 512 KiB, and Go's frames are as large as the window.
        window = 512 * 1024 if role == "s" else 256 * 1024
        self.role = role
        self.cut = cut
        self.session = Session(client=role == "c", window=window, max_frame=1 << 20)
        self.events: list[Event] = []
        self.written = b""
        self.unasked: list[bytes] = []  # what the session wrote by itself

    def run(self) -> None:
        for who, data in entries():
            if who != self.role:
                for start in range(0, len(data), self.cut):
                    self.events += self.session.receive(data[start : start + self.cut])
                self.unasked += [bytes(buffer) for buffer in self.session.outgoing()]
                continue
            self.written += data
            while len(self.written) >= 12:
                header = HEADER.unpack_from(self.written)
                end = 12 + (header[4] if header[1] == DATA else 0)
                if len(self.written) < end:
                    break
                self.act(self.written[:end], *header[1:])
                self.written = self.written[end:]
        assert not self.written
        assert not self.unasked

    def act(self, frame: bytes, kind: int, flags: int, stream: int, length: int) -> None:
        session = self.session
        if flags & ACK or (flags & RST and self.role == "s"):
            if not flags & RST:
                self.unasked.remove(frame)
                return
            session.reset(stream)  # the server's backlog was full; we leave that to the caller
            self.unasked.remove(HEADER.pack(0, WINDOW, ACK, stream, 512 * 1024 - 262144))
        elif kind == PING:
            assert session.ping() == length
        elif kind == GO_AWAY:
            session.go_away(length)
        elif flags & SYN:
            assert session.open() == stream
        elif flags & FIN:
            session.close(stream)
        elif flags & RST:
            session.reset(stream)
        elif kind == DATA:
            assert session.writable(stream) >= length
            assert session.send(stream, frame[12:]) == length
        else:
            session.consumed(stream, length)
        assert b"".join(session.outgoing()) == frame

    def of(self, kind: type, stream: int) -> list[Event]:
        return [event for event in self.events if type(event) is kind and event[0] == stream]

    def rest(self) -> list[str]:
        return shown([event for event in self.events if not isinstance(event, Data | Credit | Widened)])

    def data(self, stream: int) -> bytes:
        return b"".join(event.data for event in self.of(Data, stream) if isinstance(event, Data))

    def credit(self, stream: int) -> int:
        return sum(event.delta for event in self.of(Credit, stream) if isinstance(event, Credit))


def shown(events: list[Event]) -> list[str]:
    """Return events so that they compare with their types: they are tuples."""
    return [repr(event) for event in events]


def pattern(size: int) -> bytes:
    return (b"0123456789abcdef" * (size // 16 + 1))[:size]


@pytest.mark.parametrize("cut", [1 << 20, 4093, 7])
def test_our_client_says_what_gos_client_said(cut: int) -> None:
    replay = Replay("c", cut)
    replay.run()

    assert replay.data(1) == b"worldafter the half close"
    assert replay.credit(1) == 2 * 512 * 1024
    assert replay.data(2) == pattern(300_000)
    assert replay.data(3).strip(b".") == b""
    assert replay.of(Widened, 1) == [Widened(1, 262144)]
    assert replay.rest() == shown([
        Closed(1), Opened(2), Closed(2), Pong(0), Pong(1), Reset(7), Closed(5), GoneAway(0), Pong(2),
    ])  # fmt: skip
    assert replay.of(Widened, 2) == [Widened(2, 262144)]


@pytest.mark.parametrize("cut", [1 << 20, 4093, 7])
def test_our_server_says_what_gos_server_said(cut: int) -> None:
    replay = Replay("s", cut)
    replay.run()

    assert replay.data(1) == b"hello" + pattern(1_200_000)
    assert replay.data(2) == pattern(700_000)
    assert replay.credit(2) == 262144
    assert replay.data(3) == b"left alone"
    assert replay.rest() == shown([
        Opened(1), Closed(1), Closed(2), Pong(0), Opened(3), Opened(5), Opened(7),
        Closed(3), Reset(3), Closed(5), GoneAway(0),
    ])  # fmt: skip
