"""The spool: memory, then disk, then full; in order, and to the last byte."""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from elsewhere.agent import spool as spools
from elsewhere.agent.spool import Batch, Cursor, Spool


def taken(spool: Spool) -> list[Batch]:
    """What is handed out to the spool's first reader, who is there from now on."""
    cursor = spool.cursors[0] if spool.cursors else Cursor(spool)
    return rest(cursor)


def rest(cursor: Cursor) -> list[Batch]:
    batches = []
    while (batch := cursor.take()) is not None:
        batches.append(batch)
    return batches


def unwrapped(batches: list[Batch]) -> tuple[int, bytes]:
    """How many messages there are, and all their bytes; the numbers must have no gap."""
    for one, following in itertools.pairwise(batches):
        assert following.first == one.last + 1
    return sum(one.size for one in batches), b"".join(one.wire for one in batches)


def open_files() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return found


def test_memory_then_disk_then_full(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), memory=10, disk=20)
    spool.add(b"a" * 10, 2)
    assert (spool.in_memory, spool.on_disk, spool.full()) == (10, 0, False)
    assert not spool.full(20)
    assert spool.full(21)
    spool.add(b"b" * 20, 3)
    assert (spool.in_memory, spool.on_disk, spool.full(1)) == (10, 20, True)
    spool.add(b"c" * 5, 1)
    assert unwrapped(taken(spool)) == (6, b"a" * 10 + b"b" * 20 + b"c" * 5)
    spool.close()
    assert spool.held == 0


def test_order_is_kept_when_memory_has_room_again(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), memory=4, disk=100)
    for wire in (b"1111", b"2222", b"3333"):
        spool.add(wire, 1)
    assert spool.acknowledge(1) == 1
    spool.add(b"4444", 1)
    assert (spool.in_memory, spool.on_disk) == (4, 8)
    assert unwrapped(taken(spool)) == (3, b"222233334444")
    spool.close()


def test_rewind_gives_again_what_the_far_side_lacks(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), memory=100, disk=0)
    for wire in (b"one", b"two", b"three"):
        spool.add(wire, 2)
    assert len(taken(spool)) == 3
    spool.cursors[0].rewind(2)
    assert taken(spool)[0] == Batch(3, 2, b"two")
    spool.cursors[0].rewind(3)
    assert taken(spool)[0] == Batch(3, 2, b"two"), "a batch of which a part is known is given whole"
    spool.cursors[0].rewind(6)
    assert taken(spool) == []
    spool.cursors[0].rewind(0)
    assert unwrapped(taken(spool)) == (6, b"onetwothree")


def test_what_is_partly_acknowledged_is_kept(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), memory=100, disk=0)
    spool.add(b"one", 2)
    assert spool.acknowledge(1) == 0
    assert spool.acknowledge(2) == 1
    assert spool.acknowledge(2) == 0
    assert (len(spool), spool.held) == (0, 0)


def test_nothing_has_a_name_on_disk_and_files_are_closed_when_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "SEGMENT", 100)
    spool = Spool(str(tmp_path), memory=0, disk=10_000)
    for _ in range(10):
        spool.add(b"x" * 60, 1)
        taken(spool)
    assert list(tmp_path.iterdir()) == []
    files = [name for name in open_files() if name.startswith(str(tmp_path))]
    assert len(files) == 5
    spool.acknowledge(4)
    assert len([name for name in open_files() if name.startswith(str(tmp_path))]) == 3
    spool.close()
    assert [name for name in open_files() if name.startswith(str(tmp_path))] == []


def test_a_million_short_messages_are_few_entries(tmp_path: Path) -> None:
    """Each entry costs memory that no limit counts, so what waits on disk is joined."""
    spool = Spool(str(tmp_path), memory=0, disk=1 << 30)
    for _ in range(5000):
        spool.add(b"x" * 100, 1)
    assert len(spool) <= 8
    assert unwrapped(taken(spool)) == (5000, b"x" * 500_000)
    spool.close()


def test_what_was_handed_out_is_not_joined(tmp_path: Path) -> None:
    """Else the far side would get the part again that it has."""
    spool = Spool(str(tmp_path), memory=0, disk=1000)
    spool.add(b"one", 1)
    assert taken(spool) == [Batch(1, 1, b"one")]
    spool.add(b"two", 1)
    assert taken(spool) == [Batch(2, 1, b"two")]
    spool.close()


def test_without_a_disk_memory_is_all_there_is(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "not there"), memory=10, disk=1000)
    spool.add(b"a" * 10, 1)
    assert not spool.full(100)
    spool.add(b"b" * 10, 1)
    assert "cannot spool output" in spool.disk_error
    assert spool.full(1)
    assert unwrapped(taken(spool)) == (2, b"a" * 10 + b"b" * 10)


@pytest.mark.parametrize("before", [0, 1])
def test_a_disk_that_is_full_in_the_middle_of_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    real = os.pwrite
    room = 40

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        nonlocal room
        if not room:
            raise OSError(28, "No space left on device")
        written = real(fd, data[: min(room, 7)], offset)
        room -= written
        return written

    monkeypatch.setattr(os, "pwrite", pwrite)
    spool = Spool(str(tmp_path), memory=0, disk=1000)
    for _ in range(before):
        spool.add(b"whole" * 6, 1)
    spool.add(b"torn" * 20, 1)
    spool.add(b"after", 1)
    assert "No space left" in spool.disk_error
    assert unwrapped(taken(spool)) == (2 + before, b"whole" * 6 * before + b"torn" * 20 + b"after")
    spool.close()
    assert [name for name in open_files() if name.startswith(str(tmp_path))] == []


class Model(RuleBasedStateMachine):
    """Against a plain list of messages, of which each is one numbered byte string."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.spool = Spool(self.directory.name, memory=60, disk=200)
        self.cursor = Cursor(self.spool)
        self.messages: list[bytes] = []
        self.acknowledged = 0
        self.position = 0  # the number of the last message handed out

    @rule(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5))
    def add(self, sizes: list[int]) -> None:
        new = [bytes([(len(self.messages) + i) % 256]) * size for i, size in enumerate(sizes)]
        self.messages += new
        self.spool.add(b"".join(new), len(new))

    @rule()
    def take(self) -> None:
        batch = self.cursor.take()
        if batch is None:
            assert self.position == len(self.messages)
            return
        assert batch.first <= self.position + 1 <= batch.last
        assert batch.wire == b"".join(self.messages[batch.first - 1 : batch.last])
        self.position = batch.last

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, self.position))
        self.spool.acknowledge(number)
        self.acknowledged = max(self.acknowledged, number)

    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(self.acknowledged, max(self.position, self.acknowledged)))
        self.cursor.rewind(number)
        self.position = number

    @precondition(lambda self: len(self.spool) == 0)
    @rule()
    def empty(self) -> None:
        assert (self.spool.in_memory, self.spool.on_disk) == (0, 0)

    @invariant()
    def bytes_are_counted(self) -> None:
        least = sum(map(len, self.messages[self.acknowledged :]))
        assert least <= self.spool.held <= sum(map(len, self.messages))

    def teardown(self) -> None:
        self.spool.close()
        assert os.listdir(self.directory.name) == []
        self.directory.cleanup()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
