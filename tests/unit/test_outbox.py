"""The outbox: numbers, resends, and when there is no more room a note in the place of text."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.session import Session
from mux_kit import Pair

from elsewhere.agent.message import DELIMITER, status
from elsewhere.agent.mux import Stream, StreamHandler
from elsewhere.agent.outbox import Outbox
from elsewhere.agent.spool import Cursor, Spool
from elsewhere.agent.words import BATCH, RECEIPT
from elsewhere.agent.zmtp import encode_message, frames, message_ends

KEY = b"secret key"
session = Session(key=KEY)


def wire_of(kind: str, content: dict[str, Any], parent: str = "cell 1") -> bytes:
    header = session.msg_header(kind)
    message = session.msg(kind, content, parent={"msg_id": parent}, header=header)
    return encode_message([b"kernel.1." + kind.encode(), *session.serialize(message)])


def text(what: str, parent: str = "cell 1") -> bytes:
    return wire_of("stream", {"name": "stdout", "text": what}, parent)


class Home(StreamHandler):
    """Home's end of the iopub stream."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.data = b""
        self.credit = True
        self.pair: Pair | None = None

    async def attach(self, received: int = 0) -> None:
        self.pair = Pair()
        self.data = b""
        self.stream: Stream = self.pair.home.open()
        self.stream.handler = self
        self.stream.write(b"!")
        await self.pair.carry()
        self.outbox.attach(self.pair.to_agent[0], received)
        await self.pair.carry()

    async def tear(self) -> None:
        assert self.pair is not None
        await self.pair.tear()

    def stream_data(self, data: bytes) -> None:
        self.data += data
        if self.credit:
            self.stream.consumed(len(data))

    async def receipt(self, number: int, *, cut: int = 0) -> None:
        assert self.pair is not None
        data = RECEIPT.pack(number)
        if cut:
            self.stream.write(data[:cut])
            await self.pair.carry()
        self.stream.write(data[cut:])
        await self.pair.carry()

    @property
    def batches(self) -> list[tuple[int, int, bytes]]:
        found, position = [], 0
        while position < len(self.data):
            first, count, size = BATCH.unpack_from(self.data, position)
            position += BATCH.size
            found.append((first, count, self.data[position : position + size]))
            position += size
        assert position == len(self.data)
        return found

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What a client would see, each with its signature checked; the numbers have no gap."""
        seen = []
        reader = Session(key=KEY)
        number = self.batches[0][0] if self.batches else 1
        for first, count, wire in self.batches:
            ends = message_ends(wire)
            assert (first, count) == (number, len(ends))
            number += count
            for start, end in zip([0, *ends], ends, strict=False):
                _idents, parts = reader.feed_identities([bytes(one) for one in frames(wire, start, end)])
                seen.append(reader.deserialize(parts))
        return seen


@pytest.fixture
def outbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outbox:
    """One that sends at once, however quickly messages come."""
    monkeypatch.setattr("elsewhere.agent.outbox.PAUSE", 0)
    return Outbox(Spool(str(tmp_path), memory=20_000, disk=0), KEY, lambda state: None)


def feed(outbox: Outbox, *wires: bytes) -> None:
    ends, total = [], 0
    for wire in wires:
        total += len(wire)
        ends.append(total)
    outbox.add(b"".join(wires), ends)


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return [one["content"]["text"] for one in messages if one["msg_type"] == "stream"]


async def test_messages_are_numbered_and_pass_as_they_were(outbox: Outbox) -> None:
    home = Home(outbox)
    one, two, three = text("1"), text("2"), text("3")
    feed(outbox, one, two)
    await home.attach()
    feed(outbox, three)
    assert home.pair is not None
    await home.pair.carry()
    assert home.batches == [(1, 2, one + two), (3, 1, three)]
    await home.receipt(3, cut=5)
    assert len(outbox.spool) == 0


async def test_after_a_loss_home_gets_what_it_lacks(outbox: Outbox) -> None:
    home = Home(outbox)
    await home.attach()
    for number in range(1, 6):
        feed(outbox, text(str(number)))
    assert home.pair is not None
    await home.pair.carry()
    await home.receipt(1)
    await home.tear()
    feed(outbox, text("6"))
    await home.attach(received=3)
    assert [(first, count) for first, count, _ in home.batches] == [(4, 3)]
    await home.tear()
    await home.attach(received=0)  # a home that was restarted: all that was not acknowledged
    assert [(first, count) for first, count, _ in home.batches] == [(2, 5)]


async def test_half_a_receipt_is_forgotten_with_its_connection(outbox: Outbox) -> None:
    home = Home(outbox)
    feed(outbox, text("1"))
    await home.attach()
    assert home.pair is not None
    home.stream.write(RECEIPT.pack(1)[:3])
    await home.pair.carry()
    await home.tear()
    await home.attach(received=1)
    await home.receipt(1)
    assert len(outbox.spool) == 0


async def test_more_than_a_window_waits_in_the_spool_and_goes_on_with_credit(tmp_path: Path) -> None:
    outbox = Outbox(Spool(str(tmp_path), memory=0, disk=1 << 30), KEY, lambda state: None)
    home = Home(outbox)
    home.credit = False
    await home.attach()
    big = text("x" * 100_000)
    for _ in range(20):
        feed(outbox, big)
    assert home.pair is not None
    await home.pair.carry()
    stream = home.pair.to_agent[0]
    assert stream is not None
    assert stream.queued < 2 * len(big) + 262144
    home.credit = True
    home.stream.consumed(len(home.data) + 0)
    await home.pair.carry()
    assert home.data.count(b"x" * 100_000) == 20
    outbox.spool.close()


async def test_text_that_has_no_room_becomes_one_note_at_its_place(outbox: Outbox) -> None:
    feed(outbox, text("a" * 15_000))
    for number in range(30):
        feed(outbox, text(str(number) * 5000, "cell 2"))
    feed(outbox, wire_of("status", {"execution_state": "idle"}, "cell 2"))
    home = Home(outbox)
    await home.attach()
    first, note, status = home.messages
    assert first["content"]["text"] == "a" * 15_000
    assert note["msg_type"] == "stream"
    assert note["content"]["name"] == "stderr"
    assert note["parent_header"]["msg_id"] == "cell 2"
    assert note["header"]["session"] == session.session
    assert "30 pieces of output" in note["content"]["text"]
    assert status["msg_type"] == "status"
    assert outbox.folded_messages == 30


async def test_the_note_comes_also_when_room_comes_back_first(outbox: Outbox) -> None:
    home = Home(outbox)
    await home.attach()
    feed(outbox, text("a" * 19_000))
    feed(outbox, text("b" * 5000))
    assert home.pair is not None
    await home.pair.carry()
    assert len(home.messages) == 1
    await home.receipt(1)
    feed(outbox, text("c"))
    await home.pair.carry()
    seen = texts(home.messages)
    assert len(seen) == 3
    assert "1 pieces of output" in seen[1]
    assert seen[2] == "c"


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("display_data", {"data": {"text/plain": "x" * 30_000}, "metadata": {}}),
        ("update_display_data", {"data": {"text/plain": '"stream"' * 4000}, "metadata": {}}),
        ("comm_msg", {"comm_id": "c", "data": {"msg_type": "stream", "text": "y" * 30_000}}),
        ("error", {"ename": "E", "evalue": "v", "traceback": ["t" * 30_000]}),
        ("status", {"execution_state": "busy"}),
    ],
)
async def test_what_is_not_text_is_never_folded(outbox: Outbox, kind: str, content: dict[str, Any]) -> None:
    feed(outbox, text("a" * 18_000))
    wires = [wire_of(kind, content) for _ in range(10)]
    for wire in wires:
        feed(outbox, text("lost" * 1000))
        feed(outbox, wire)
    home = Home(outbox)
    await home.attach()
    kinds = [one["msg_type"] for one in home.messages]
    assert kinds.count(kind) == 10
    assert [home.data.count(wire) for wire in wires] == [1] * 10


async def test_a_kernel_without_a_key_gets_notes_without_a_signature(tmp_path: Path) -> None:
    outbox = Outbox(Spool(str(tmp_path), memory=10, disk=0), b"", lambda state: None)
    feed(outbox, text("lost" * 100))
    outbox.flush_note()
    batch = Cursor(outbox.spool).take()
    assert batch is not None
    parts = [bytes(one) for one in frames(batch.wire, 0, len(batch.wire))]
    assert parts[parts.index(DELIMITER) + 1] == b""


async def test_the_note_says_why_there_is_no_disk(tmp_path: Path) -> None:
    outbox = Outbox(Spool(str(tmp_path / "none"), memory=10, disk=10_000_000), KEY, lambda state: None)
    feed(outbox, text("kept, and the disk is found missing"))
    feed(outbox, text("lost" * 100))
    outbox.flush_note()
    home = Home(outbox)
    await home.attach()
    assert "cannot spool output to" in texts(home.messages)[-1]


async def test_the_state_is_told_as_it_passes(tmp_path: Path) -> None:
    states: list[str] = []
    outbox = Outbox(Spool(str(tmp_path), memory=10_000, disk=0), KEY, states.append)
    feed(
        outbox,
        wire_of("status", {"execution_state": "busy"}),
        text('"status" "execution_state"'),
        wire_of("status", {"execution_state": "idle"}),
    )
    assert states == ["busy", "idle"]


async def test_what_a_kernel_does_for_itself_is_no_use_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("elsewhere.agent.outbox.time.monotonic", lambda: now[0])
    outbox = Outbox(Spool(str(tmp_path), memory=10_000, disk=0), KEY, lambda state: None)

    def say_at(moment: float, kind: str, content: dict[str, Any], asked: str) -> float:
        now[0] = moment
        header = session.msg_header(kind)
        parent = session.msg_header(asked)
        message = session.msg(kind, content, parent=parent, header=header)
        feed(outbox, encode_message([b"topic", *session.serialize(message)]))
        return outbox.active_at

    assert say_at(1, "status", {"execution_state": "busy"}, "kernel_info_request") == 0
    assert say_at(2, "status", {"execution_state": "idle"}, "kernel_info_request") == 0
    assert say_at(3, "status", {"execution_state": "busy"}, "execute_request") == 3
    assert say_at(4, "status", {"execution_state": "busy"}, "interrupt_request") == 4
    assert say_at(5, "stream", {"name": "stdout", "text": "at work"}, "execute_request") == 5
    assert say_at(6, "status", {"execution_state": "idle"}, "execute_request") == 6
    assert say_at(7, "stream", {"name": "stdout", "text": "a thread"}, "execute_request") == 6


@pytest.mark.parametrize(
    "parts",
    [
        [b"no jupyter message", b'"status"', b'"execution_state"'],
        [DELIMITER, b"", b'{"msg_type":"status"}', b'"execution_state"'],
        [DELIMITER, b"", b'["status"]', b"", b"", b'{"execution_state":1}'],
        [DELIMITER, b"", b'{"msg_type":"status"}', b"", b"", b'["execution_state"]'],
        [DELIMITER, b"", b'{"msg_type":"status"}', b"", b"", b'"execution_state"\xff'],
        [DELIMITER, b"", b'{"msg_type":"stream"', b"", b"", b"{}"],
    ],
)
async def test_what_is_no_message_passes_untouched(tmp_path: Path, parts: list[bytes]) -> None:
    states: list[str] = []
    outbox = Outbox(Spool(str(tmp_path), memory=10, disk=0), KEY, states.append)
    wire = encode_message(parts)
    feed(outbox, wire)
    feed(outbox, wire)
    home = Home(outbox)
    await home.attach()
    assert b"".join(one for _, _, one in home.batches) == wire * 2
    assert states == []
    assert status(wire, 0, len(wire)) is None


async def test_quick_output_goes_in_lots_and_at_once_when_the_kernel_is_idle(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elsewhere.agent.outbox.PAUSE", 0.03)
    home = Home(outbox)
    await home.attach()
    assert home.pair is not None
    for number in range(1, 4):
        feed(outbox, text(str(number)))
        await home.pair.carry()
    assert [(first, count) for first, count, _ in home.batches] == [(1, 1)]
    await asyncio.sleep(0.05)
    await home.pair.carry()
    assert [(first, count) for first, count, _ in home.batches] == [(1, 1), (2, 2)]
    feed(outbox, text("4"))
    feed(outbox, wire_of("status", {"execution_state": "idle"}))
    await home.pair.carry()
    assert [(first, count) for first, count, _ in home.batches] == [(1, 1), (2, 2), (4, 2)]
