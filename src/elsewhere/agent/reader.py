"""Who is sent what the kernel says: over a stream while there is one, from where it stopped last time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Optional

from .mux import Stream, StreamHandler
from .spool import EVERYBODY, Batch, Cursor, Spool

AHEAD = 256 * 1024
"""Bytes handed to the stream before its window takes them: no more, the spool is the place to wait."""

TOGETHER = 32 * 1024
"""Bytes up to which batches are sent as one, and from which output is sent without a pause."""


class Reader(StreamHandler, ABC):
    """Keeps its place in the spool from one stream to the next. ``close`` it at the end."""

    can_leave = False
    """Whether it may be forgotten while it is away, when the spool is full."""

    def __init__(self, spool: Spool, addressee: str = EVERYBODY) -> None:
        self.stream: Optional[Stream] = None
        self._cursor = Cursor(spool, addressee)
        self._sent = 0
        self._receipt = 0

    @property
    def delivered(self) -> int:
        """The number up to which nothing need be kept for it."""
        if self._receipt >= self._sent:
            return max(self._receipt, self._cursor.done)
        return self._receipt

    def go_on(self, stream: Stream, received: int) -> None:
        """Send over this stream, from the first batch after the number that home has."""
        self.stream = stream
        stream.handler = self
        self._sent = max(received, self._receipt)
        self._cursor.rewind(self._sent)

    def start_at_end(self) -> None:
        """Send only what comes from now on."""
        self._receipt = self._cursor.skip_to_end()

    def push(self) -> bool:
        """Send while the stream takes it, small batches as one; returns whether anything was."""
        sent = False
        while self.stream is not None and self.stream.queued < AHEAD:
            batch = self._cursor.take()
            if batch is None:
                break
            sent = True
            self._send(batch)
        return sent

    def _send(self, batch: Batch) -> None:
        stream = self.stream
        assert stream is not None
        wires, count, length, last = [batch.wire], batch.size, len(batch.wire), batch
        while length < TOGETHER:
            more = self._cursor.take_following(last)
            if more is None:
                break
            wires.append(more.wire)
            count += more.size
            length += len(more.wire)
            last = more
        self._sent = last.last
        header = self._header(batch, count, length)
        if len(wires[-1]) >= TOGETHER:
            large = wires.pop()
            stream.write(b"".join([header, *wires]))
            stream.write(large)
        else:
            stream.write(b"".join([header, *wires]))

    @abstractmethod
    def _header(self, batch: Batch, count: int, length: int) -> bytes:
        """Return what goes before the messages on this kind of stream."""

    def take_receipt(self, number: int) -> None:
        """Home has delivered up to this number."""
        self._receipt = max(self._receipt, number)

    def close(self) -> None:
        """It is sent nothing any more."""
        self._cursor.close()
