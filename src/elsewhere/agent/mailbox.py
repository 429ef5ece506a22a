"""Mailboxes: all that passes between one front end and the kernel, kept until the front end has it.

A mailbox outlives its streams and home itself: replies and output that nobody could take meanwhile are
sent when the front end is back. It has sockets of its own to the kernel, so replies are its own.
"""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Dict, List, Optional

from .dealer import Dealers
from .mux import CLOSED, Stream
from .outbox import Outbox
from .reader import Reader
from .spool import Batch
from .words import CHANNEL_KINDS, LETTER, RECEIPT_KIND, Accepted, Opening, encode

ABSENCE = 24 * 3600.0
"""Seconds that a mailbox is kept for a front end that is away."""
REQUEST_BYTES = 1 << 30

_CHANNELS = {kind: channel for channel, kind in CHANNEL_KINDS.items()}


class Mailboxes:
    """All mailboxes of one agent, by name. ``connection`` tells where the kernel listens, if it does."""

    def __init__(self, outbox: Outbox, connection: Callable[[], Optional[Dict[str, Any]]]) -> None:
        self._outbox = outbox
        self._connection = connection
        self._mailboxes: Dict[str, Mailbox] = {}

    def accept(self, stream: Stream, opening: Opening, rest: bytes, instance: str) -> None:
        """Take a stream from this life of home: the mailbox goes on, or is a new one.

        The first mailbox of all gets what was published before it, later ones only what comes then.
        """
        box = self._mailboxes.get(opening.pipe)
        if box is None:
            first = not self._outbox.was_read
            box = self._mailboxes[opening.pipe] = Mailbox(
                opening.pipe, self._outbox, self._connection, self._forget
            )
            if not first:
                box.start_at_end()
        box.open(stream, opening.received, instance)
        if rest:
            box.stream_data(rest)

    def kernel_gone(self) -> None:
        """The kernel behind them is over; another one may follow."""
        for box in self._mailboxes.values():
            box.kernel_gone()

    def close(self) -> None:
        """Forget them all."""
        for box in list(self._mailboxes.values()):
            box.leave()

    def _forget(self, box: Mailbox) -> None:
        if self._mailboxes.get(box.name) is box:
            del self._mailboxes[box.name]


class Mailbox(Reader):
    """One of them. ``forgotten`` is called when it is over."""

    can_leave = True

    def __init__(
        self,
        name: str,
        outbox: Outbox,
        connection: Callable[[], Optional[Dict[str, Any]]],
        forgotten: Callable[[Mailbox], None],
    ) -> None:
        super().__init__(outbox.spool, name)
        self.name = name
        self._outbox = outbox
        self._connection = connection
        self._forgotten = forgotten
        self._dealers: Optional[Dealers] = None
        self._instance = ""
        self._requests = 0
        self._begun = bytearray()
        self._owed = 0
        self._absence: Optional[asyncio.TimerHandle] = None
        outbox.join(self)

    def open(self, stream: Stream, received: int, instance: str) -> None:
        """Go on over this stream. Requests are numbered anew in each life of home."""
        if instance != self._instance:
            self._instance, self._requests = instance, 0
        if self._absence is not None:
            self._absence.cancel()
        old, self.stream = self.stream, None
        if old is not None:
            old.reset()
        self._begun.clear()
        self._owed = 0
        stream.write(encode(Accepted(self._requests)))
        self.go_on(stream, received)
        self._outbox.push()

    def kernel_gone(self) -> None:
        """Its sockets lead nowhere any more."""
        if self._dealers is not None:
            self._dealers.close()
            self._dealers = None
            self._give_credit()

    def close(self) -> None:
        """Forget it: nothing is kept for it, and its sockets are closed."""
        self.kernel_gone()
        if self._absence is not None:
            self._absence.cancel()
        super().close()
        self._forgotten(self)

    def leave(self) -> None:
        """End it."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.reset()
        self._outbox.leave(self)

    # ---- the stream

    def stream_data(self, data: bytes) -> None:
        """Requests and receipts."""
        self._owed += len(data)
        self._begun += data
        position = 0
        while len(self._begun) - position >= LETTER.size:
            kind, number, _, size = LETTER.unpack_from(self._begun, position)
            end = position + LETTER.size + size
            if size > REQUEST_BYTES or not (kind == RECEIPT_KIND or kind in _CHANNELS):
                self.leave()
                return
            if len(self._begun) < end:
                break
            self._take(kind, number, bytes(self._begun[position + LETTER.size : end]))
            position = end
        del self._begun[:position]
        self._give_credit()

    def stream_drained(self) -> None:
        """There is room: go on."""
        self.push()

    def stream_ended(self, how: str) -> None:
        """Closed: the front end will not come back. Else it is away, for a time."""
        if how == CLOSED:
            self.leave()
        else:
            self.stream = None
            self._absence = asyncio.get_running_loop().call_later(ABSENCE, self.leave)

    def _take(self, kind: int, number: int, wire: bytes) -> None:
        if kind == RECEIPT_KIND:
            self.take_receipt(number)
            self._outbox.settle()
        elif number > self._requests:
            self._requests = number
            self._ask(_CHANNELS[kind], wire)
            if self.stream is not None:
                self.stream.write(LETTER.pack(RECEIPT_KIND, number, 0, 0))

    def _ask(self, channel: str, wire: bytes) -> None:
        connection = self._connection()
        if connection is None or channel == "iopub":
            return
        if self._dealers is None:
            self._dealers = Dealers(connection, self._reply, self._give_credit)
        self._dealers.send(channel, wire)

    def _reply(self, channel: str, wire: bytes, ends: List[int]) -> None:
        self._outbox.add_reply(channel, wire, ends, self.name)

    def _give_credit(self) -> None:
        if self.stream is not None and not (self._dealers is not None and self._dealers.crowded):
            owed, self._owed = self._owed, 0
            self.stream.consumed(owed)

    def _header(self, batch: Batch, count: int, length: int) -> bytes:
        return LETTER.pack(CHANNEL_KINDS[batch.channel], batch.first, count, length)
