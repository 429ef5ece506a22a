"""The reading of the kernel's iopub socket, which goes on while the event loop does not."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from test_outbox import KEY

from agent_kit import PATIENCE
from elsewhere.agent.drain import Drain
from elsewhere.agent.iopub import listen
from elsewhere.agent.outbox import Outbox
from elsewhere.agent.spool import Cursor, Spool
from elsewhere.agent.zmtp import frames, message_ends

COUNT = 400
SIZE = 100_000
"""Of each message: all of them are far more than any socket's buffers."""


class Publisher:
    """A kernel's iopub that is told to wait where it would drop, and so tells that it would have."""

    def __init__(self, address: str) -> None:
        self.done = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.sndhwm = 10
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        self._socket.bind(address)
        self._thread = threading.Thread(target=self._publish, daemon=True)
        self._thread.start()

    def _publish(self) -> None:
        self._socket.recv()  # somebody subscribes
        for number in range(COUNT):
            self._socket.send_multipart([b"%d" % number, bytes(SIZE)])
        self.done.set()
        self._socket.close()
        self._context.term()

    def join(self) -> None:
        self._thread.join()


class Heard(asyncio.Protocol):
    """Notes what it is told, and does ``first`` at its first data."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = asyncio.Event()

    def first(self) -> None:
        """Nothing, unless a test replaces it."""

    def data_received(self, data: bytes) -> None:
        if not self.data:
            self.first()
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    yield near, far
    far.close()
    near.close()


async def test_a_disk_that_does_not_answer_does_not_stop_the_reading(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher(f"ipc://{short}/k-1")
    answers: list[bool] = []
    pwrite = os.pwrite

    def answer_late(*args: int) -> int:
        if not answers:
            answers.append(publisher.done.wait(PATIENCE))
        return pwrite(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "pwrite", answer_late)
    outbox = Outbox(Spool(str(short), memory=0, disk=1 << 30), KEY, lambda state: None)
    reader = await listen({"transport": "ipc", "ip": f"{short}/k", "iopub_port": 1}, outbox)
    await asyncio.wait_for(reader.over, 2 * PATIENCE)
    publisher.join()
    assert answers[0], "the kernel would have dropped what it had published"
    assert numbers(outbox.spool) == list(range(COUNT))
    outbox.spool.close()


def numbers(spool: Spool) -> list[int]:
    """Of the messages, as they come out of the spool."""
    found, cursor = [], Cursor(spool)
    while (batch := cursor.take()) is not None:
        ends = message_ends(batch.wire)
        found += [
            int(bytes(frames(batch.wire, start, end)[0]))
            for start, end in zip([0, *ends], ends, strict=False)
        ]
    return found


async def test_what_was_read_by_either_comes_in_its_order_and_then_the_end(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    sent = b"".join(b"%d " % number for number in range(500_000))
    heard = Heard()

    def send() -> None:
        far.sendall(sent)
        far.close()

    sender = threading.Thread(target=send)

    def first() -> None:
        sender.join(PATIENCE)
        assert not sender.is_alive()

    heard.first = first  # type: ignore[method-assign]
    Drain(near, heard)
    sender.start()
    await asyncio.wait_for(heard.lost.wait(), PATIENCE)
    assert heard.data == sent
    assert near.fileno() == -1


async def test_where_no_thread_can_be_started_the_loop_reads_alone(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    near, far = pair
    heard = Heard()
    monkeypatch.setattr(threading.Thread, "start", start)
    Drain(near, heard)
    far.sendall(b"all the same")
    far.close()
    await asyncio.wait_for(heard.lost.wait(), PATIENCE)
    assert heard.data == b"all the same"


async def test_after_an_abort_nothing_is_handed_over_but_the_end(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    heard = Heard()
    drain = Drain(near, heard)
    far.sendall(b"too late")
    drain.abort()
    drain.abort()
    drain.write(b"nobody takes this")
    await asyncio.wait_for(heard.lost.wait(), PATIENCE)
    assert heard.data == b""
    assert drain.is_closing()


async def test_who_takes_not_even_the_little_that_is_sent_is_given_up(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, _ = pair
    heard = Heard()
    drain = Drain(near, heard)
    while not drain.is_closing():
        drain.write(bytes(10_000))
    await asyncio.wait_for(heard.lost.wait(), PATIENCE)
