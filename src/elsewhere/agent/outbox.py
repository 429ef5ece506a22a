"""What the kernel publishes, on its way home: numbered, spooled, sent, acknowledged.

It never makes the kernel wait. When the spool is full, text output is folded into a note that says
how much is missing; all other messages are kept.
"""

from __future__ import annotations

import asyncio
import time
from typing import Callable, List, Optional

from . import message
from .mux import Stream, StreamHandler
from .spool import Spool
from .words import BATCH, RECEIPT

AHEAD = 256 * 1024
"""Bytes handed to the stream before its window takes them: no more, the spool is the place to wait."""

PAUSE = 0.005
"""Seconds between two sendings of messages that come quickly: each one sent wakes three processes. The
first of a row goes at once, and so does all that waits when the kernel is idle again."""

TOGETHER = 32 * 1024
"""Bytes from which output is sent without such a pause, and up to which batches are sent as one."""


class Outbox(StreamHandler):
    """From the kernel's iopub socket to the iopub stream. ``status`` hears each execution state."""

    def __init__(self, spool: Spool, key: bytes, status: Callable[[str], None]) -> None:
        self.spool = spool
        self.key = key
        self.folded_messages = 0
        self._status = status
        self._stream: Optional[Stream] = None
        self._receipt = b""
        self._folded_count = 0
        self._folded_bytes = 0
        self._folded_like: Optional[message.Parts] = None
        self._pause_end = 0.0
        self._timer: Optional[asyncio.TimerHandle] = None
        self._waiting = 0

    def add(self, wire: bytes, ends: List[int]) -> None:
        """Take whole messages from the kernel, as the wire has them."""
        states = message.execution_states(wire, ends)
        for state in states:
            self._status(state)
        if self.spool.full(len(wire)) or self._folded_count:
            self._add_sparingly(wire, ends)
        else:
            self.spool.add(wire, len(ends))
        self._waiting += len(wire)
        now = time.monotonic()
        if now >= self._pause_end or self._waiting >= TOGETHER or (states and states[-1] != "busy"):
            self.push()
        elif self._stream is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause_end - now, self.push)

    def _add_sparingly(self, wire: bytes, ends: List[int]) -> None:
        start = 0
        for end in ends:
            text = message.stream_size(wire, start, end)
            if text and self.spool.full(end - start):
                self._folded_count += 1
                self._folded_bytes += text
                self._folded_like = message.parts(wire, start, end)
            else:
                self.flush_note()
                self.spool.add(wire[start:end], 1)
            start = end

    def flush_note(self) -> None:
        """Say what was folded, at the place where it is missing."""
        if not self._folded_count or self._folded_like is None:
            return
        text = (
            "\n[elsewhere: %d pieces of output (%d bytes) left out here: nobody took them "
            "and the spool of %d bytes is full%s]\n"
            % (
                self._folded_count,
                self._folded_bytes,
                self.spool.held,
                self.spool.disk_error and "; " + self.spool.disk_error,
            )
        )
        self.folded_messages += self._folded_count
        self._folded_count = self._folded_bytes = 0
        self.spool.add(message.note(text, self._folded_like, self.key), 1)

    def attach(self, stream: Stream, received: int) -> None:
        """Send over this stream, from the first batch after the number that home has."""
        self._stream = stream
        self._receipt = b""
        stream.handler = self
        self.spool.rewind(received)
        self.push()

    def push(self) -> None:
        """Send while the stream takes it, small batches as one."""
        self._waiting = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._stream is not None and self._stream.queued < AHEAD:
            batch = self.spool.take()
            if batch is None:
                break
            self._pause_end = time.monotonic() + PAUSE
            wires, count, length = [batch.wire], batch.size, len(batch.wire)
            while length < TOGETHER:
                more = self.spool.take()
                if more is None:
                    break
                wires.append(more.wire)
                count += more.size
                length += len(more.wire)
            header = BATCH.pack(batch.first, count, length)
            if len(wires[-1]) >= TOGETHER:
                large = wires.pop()
                self._stream.write(b"".join([header, *wires]))
                self._stream.write(large)
            else:
                self._stream.write(b"".join([header, *wires]))

    def stream_drained(self) -> None:
        """There is room: go on."""
        self.push()

    def stream_data(self, data: bytes) -> None:
        """Receipts: what home has delivered need not be kept."""
        if self._stream is not None:
            self._stream.consumed(len(data))
        data = self._receipt + data
        whole = len(data) - len(data) % RECEIPT.size
        self._receipt = data[whole:]
        if whole:
            (number,) = RECEIPT.unpack_from(data, whole - RECEIPT.size)
            self.spool.acknowledge(number)
            if self._folded_count and not self.spool.full(4096):
                self.flush_note()
                self.push()

    def stream_ended(self, how: str) -> None:
        """The link is lost, or home is done with it: keep all until the next ``attach``."""
        self._stream = None
