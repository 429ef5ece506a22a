"""What the kernel publishes, on its way home: numbered, spooled, sent, acknowledged.

It never makes the kernel wait. When the spool is full, text output is folded into a note that says
how much is missing; all other messages are kept.
"""

from __future__ import annotations

import asyncio
import time
from typing import Callable, List, Optional

from . import message
from .mux import Stream
from .reader import TOGETHER, Reader
from .spool import Batch, Spool
from .words import BATCH, RECEIPT

PAUSE = 0.005
"""Seconds between two sendings of messages that come quickly: each one sent wakes three processes. The
first of a row goes at once, and so does all that waits when the kernel is idle again."""


class Outbox:
    """From the kernel's sockets to its readers at home. ``status`` hears each execution state.

    A message is kept until all readers have it. Until the first reader came it is kept for him; once
    the last has gone for good it is kept for nobody.
    """

    def __init__(self, spool: Spool, key: bytes, status: Callable[[str], None]) -> None:
        self.spool = spool
        self.key = key
        self.folded_messages = 0
        self.was_read = False
        self.active_at = time.monotonic()
        self._status = status
        self._busy = False
        self._readers: List[Reader] = []
        self._publication: Optional[_Publication] = None
        self._folded_count = 0
        self._folded_bytes = 0
        self._folded_like: Optional[message.Parts] = None
        self._pause_end = 0.0
        self._timer: Optional[asyncio.TimerHandle] = None
        self._waiting = 0

    def add(self, wire: bytes, ends: List[int]) -> None:
        """Take whole messages that the kernel has published, as the wire has them."""
        statuses = message.statuses(wire, ends)
        self._note_activity(statuses)
        if self.spool.full(len(wire)):
            self._forget_absent(len(wire))
        if self.spool.full(len(wire)) or self._folded_count:
            self._add_sparingly(wire, ends)
        else:
            self.spool.add(wire, len(ends))
        self._waiting += len(wire)
        now = time.monotonic()
        if now >= self._pause_end or self._waiting >= TOGETHER or (statuses and statuses[-1].state != "busy"):
            self.push()
        elif self._timer is None and any(reader.stream is not None for reader in self._readers):
            self._timer = asyncio.get_running_loop().call_later(self._pause_end - now, self.push)

    def _note_activity(self, statuses: List[message.Status]) -> None:
        """``active_at``: when it was last given work, did some, or said something while at it."""
        now = time.monotonic()
        for status in statuses:
            self._status(status.state)
            if status.asked not in message.HOUSEKEEPING:
                self._busy = status.state == "busy"
                self.active_at = now
        if self._busy:
            self.active_at = now

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

    def add_reply(self, channel: str, wire: bytes, ends: List[int], addressee: str) -> None:
        """Take whole messages from the kernel that answer one reader; they never overtake output."""
        self.flush_note()
        self.spool.add(wire, len(ends), channel=channel, addressee=addressee)
        self.push()

    def attach(self, stream: Stream, received: int) -> None:
        """Send what is published over this stream, from the first batch after the number that home has."""
        if self._publication is None:
            self._publication = _Publication(self)
            self.join(self._publication)
        self._publication.go_on(stream, received)
        self.push()

    def join(self, reader: Reader) -> None:
        """Keep messages for this reader too, until it leaves."""
        self.was_read = True
        self._readers.append(reader)

    def leave(self, reader: Reader) -> None:
        """Keep nothing for it any more."""
        if reader in self._readers:
            self._readers.remove(reader)
            reader.close()
            self.settle()

    def push(self) -> None:
        """Send to each reader what its stream takes."""
        self._waiting = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sent = [reader.push() for reader in self._readers]
        if any(sent):
            self._pause_end = time.monotonic() + PAUSE
        if self.was_read and not self._readers:
            self.spool.acknowledge(self.spool.last)

    def settle(self) -> None:
        """A reader has more than before: drop what all have."""
        self.spool.acknowledge(min((one.delivered for one in self._readers), default=self.spool.last))
        if self._folded_count and not self.spool.full(4096):
            self.flush_note()
            self.push()

    def _forget_absent(self, size: int) -> None:
        """Who is away gives way to who is here."""
        if not any(reader.stream is not None for reader in self._readers):
            return
        for reader in list(self._readers):
            if reader.can_leave and reader.stream is None and self.spool.full(size):
                self.leave(reader)


class _Publication(Reader):
    """The iopub stream: what the kernel publishes, for whoever is subscribed at home."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(outbox.spool)
        self._outbox = outbox
        self._begun = b""

    def go_on(self, stream: Stream, received: int) -> None:
        """Begin with a whole receipt."""
        self._begun = b""
        super().go_on(stream, received)

    def _header(self, batch: Batch, count: int, length: int) -> bytes:
        return BATCH.pack(batch.first, count, length)

    def stream_drained(self) -> None:
        """There is room: go on."""
        self.push()

    def stream_data(self, data: bytes) -> None:
        """Receipts: what home has delivered need not be kept."""
        if self.stream is not None:
            self.stream.consumed(len(data))
        data = self._begun + data
        whole = len(data) - len(data) % RECEIPT.size
        self._begun = data[whole:]
        if whole:
            (number,) = RECEIPT.unpack_from(data, whole - RECEIPT.size)
            self.take_receipt(number)
            self._outbox.settle()

    def stream_ended(self, how: str) -> None:
        """The link is lost, or home is done with it: keep all until the next ``attach``."""
        self.stream = None
