"""Home's end of a mailbox: what one front end asks of a kernel, and what it is to be given.

It outlives connections of the agent, jobs, and restarts of the kernel. All belongs to the home's loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .agent.mux import Stream, StreamHandler
from .agent.words import (
    CHANNEL_KINDS,
    LETTER,
    MAX_HELLO,
    RECEIPT_KIND,
    Accepted,
    Opening,
    WordReader,
    WordsError,
    encode,
    expect,
)
from .agent.zmtp import ZmtpError, message_ends
from .changes import Changes

WINDOW = 1024 * 1024
"""Bytes on the way to one front end at most: what a front end that takes nothing costs home."""

RECEIPT_DELAY = 0.05
RECEIPT_BYTES = 256 * 1024
"""A receipt is given for many messages at once, after this time or this much, whichever comes first."""

_CHANNELS = {kind: channel for channel, kind in CHANNEL_KINDS.items()}


@dataclass(frozen=True)
class Letter:
    """Messages of one channel for one front end: their wire bytes, and where each of them ends.

    The last one is number ``last`` of its launch; 0 if they have no numbers, as replies that come from
    an agent of protocol 1.
    """

    launch: int
    channel: str
    wire: bytes
    ends: tuple[int, ...]
    last: int


class Carrier(Protocol):
    """How letters pass while the agent is connected."""

    def send(self, number: int, channel: str, wire: bytes) -> None:
        """Send a request."""

    def took(self, number: int) -> None:
        """The front end has all up to this number."""

    def flush_receipt(self) -> None:
        """Tell the agent now what it is to be told before long."""

    def close(self, *, for_good: bool) -> None:
        """The front end is away, or will not come back."""


class Mailbox:
    """``deliver`` gets the letters, in order; ``took`` says that the front end has them.

    ``received`` is the number that was delivered last, ``taken`` the last that the front end has: of this
    launch, or of an earlier life of home.
    Requests wait until the kernel is ready; each is sent until the agent has it, and done once.
    """

    def __init__(self, name: str, deliver: Callable[[Letter], None], launch: int, received: int) -> None:
        self.name = name
        self.launch = launch
        self.received = self.taken = received
        self.waiting = 0
        self._deliver = deliver
        self._carrier: Carrier | None = None
        self._requests: deque[tuple[str, bytes]] = deque()
        self._confirmed = 0
        self._sent = 0
        self._ready = False
        self._drops = Changes()

    def post(self, channel: str, wire: bytes) -> None:
        """Send one message to the kernel, now or when it is ready."""
        self._requests.append((channel, wire))
        self.waiting += len(wire)
        self._send()

    async def drained(self, most: int) -> None:
        """Return when no more than so many bytes wait for the kernel."""
        while self.waiting > most:
            await self._drops.next()

    def took(self, launch: int, number: int) -> None:
        """The front end has all letters up to this number for good."""
        if launch == self.launch:
            self.taken = max(self.taken, number)
            if self._carrier is not None:
                self._carrier.took(number)

    def close(self, *, for_good: bool) -> None:
        """The front end is away: its letters are kept for it, unless it will not come back."""
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            carrier.close(for_good=for_good)

    # ---- what the line brings

    def set_ready(self, ready: bool) -> None:
        """Whether the kernel takes requests."""
        self._ready = ready
        self._send()

    def new_job(self, launch: int) -> None:
        """Numbers begin anew; what was asked of the job before is forgotten, what still waits is not."""
        self.lost()
        self._ready = False
        self.launch, self.received, self.taken = launch, 0, 0
        for _ in range(self._sent):
            self._drop_first()
        self._confirmed = self._sent = 0

    def attach(self, carrier: Carrier, confirmed: int) -> None:
        """The agent is connected, and has so many requests of this life of home."""
        self._carrier = carrier
        for _ in range(min(self._sent, max(0, confirmed - self._confirmed))):
            self._drop_first()
        self._confirmed, self._sent = confirmed, 0
        self._send()

    def lost(self) -> None:
        """The agent's connection is lost."""
        self._carrier = None

    def confirm(self, number: int) -> None:
        """The agent has all requests up to this number."""
        while self._confirmed < number and self._sent:
            self._drop_first()
            self._sent -= 1
            self._confirmed += 1

    def flush_receipt(self) -> None:
        """Tell the agent now how far letters were taken."""
        if self._carrier is not None:
            self._carrier.flush_receipt()

    def heard(self, channel: str, first: int, ends: list[int], wire: bytes) -> int:
        """Take messages from the agent, but those that are known; returns how many bytes were delivered."""
        last = first + len(ends) - 1
        if first <= self.received < last:
            known = self.received - first + 1
            start = ends[known - 1]
            wire, ends = wire[start:], [end - start for end in ends[known:]]
        if self.received >= last:
            return 0
        self.received = last
        self._deliver(Letter(self.launch, channel, wire, tuple(ends), last))
        return len(wire)

    def heard_unnumbered(self, channel: str, wire: bytes, ends: list[int]) -> None:
        """Take replies from an agent of protocol 1."""
        self._deliver(Letter(self.launch, channel, wire, tuple(ends), 0))

    def _send(self) -> None:
        while self._carrier is not None and self._ready and self._sent < len(self._requests):
            channel, wire = self._requests[self._sent]
            self._sent += 1
            self._carrier.send(self._confirmed + self._sent, channel, wire)

    def _drop_first(self) -> None:
        _, wire = self._requests.popleft()
        self.waiting -= len(wire)
        self._drops.notify()


class MailboxStream(StreamHandler):
    """The carrier of one mailbox over one connection of an agent."""

    def __init__(self, box: Mailbox, stream: Stream) -> None:
        self._box = box
        self._stream = stream
        self._reader: WordReader | None = WordReader(MAX_HELLO)
        self._begun = bytearray()
        self._needed = LETTER.size
        self._credit = 0
        self._untaken: deque[tuple[int, int]] = deque()
        self._untaken_bytes = 0
        self._receipt = box.taken
        self._receipt_timer: asyncio.TimerHandle | None = None
        self._without_receipt = 0
        stream.handler = self
        stream.write(encode(Opening("mailbox", box.name, box.received)))
        self.flush_receipt()  # the last one may have been lost with a connection, or with a life of home

    # ---- Carrier

    def send(self, number: int, channel: str, wire: bytes) -> None:
        """Send a request."""
        self._stream.write(LETTER.pack(CHANNEL_KINDS[channel], number, 1, len(wire)))
        self._stream.write(wire)

    def took(self, number: int) -> None:
        """Give credit for it at once, and a receipt before long."""
        while self._untaken and self._untaken[0][0] <= number:
            _, size = self._untaken.popleft()
            self._untaken_bytes -= size
            self._without_receipt += size
        self._give_credit()
        self._receipt = max(self._receipt, number)
        if self._without_receipt >= RECEIPT_BYTES:
            self.flush_receipt()
        elif self._receipt_timer is None:
            loop = asyncio.get_running_loop()
            self._receipt_timer = loop.call_later(RECEIPT_DELAY, self.flush_receipt)

    def flush_receipt(self) -> None:
        """Tell the agent now."""
        if self._receipt_timer is not None:
            self._receipt_timer.cancel()
            self._receipt_timer = None
        self._without_receipt = 0
        if self._receipt:
            self._stream.write(LETTER.pack(RECEIPT_KIND, self._receipt, 0, 0))

    def close(self, *, for_good: bool) -> None:
        """End the stream; the agent keeps the mailbox, unless it is for good."""
        self.flush_receipt()
        self._stream.handler = StreamHandler()
        if for_good:
            self._stream.close()
        else:
            self._stream.reset()

    # ---- the stream

    def stream_data(self, data: bytes) -> None:
        """The agent's answer, then letters."""
        self._credit += len(data)
        try:
            if self._reader is not None:
                word, data = self._reader.first(data)
                if word is None:
                    self._give_credit()
                    return
                self._reader = None
                self._box.attach(self, expect(word, Accepted).received)
            self._begun += data
            if len(self._begun) >= self._needed:
                self._take_all()
        except (WordsError, ZmtpError, KeyError):
            self._stream.reset()
            self._box.lost()
            return
        self._give_credit()

    def stream_ended(self, how: str) -> None:
        """The connection is lost, or the agent has forgotten the mailbox."""
        if self._receipt_timer is not None:
            self._receipt_timer.cancel()
            self._receipt_timer = None
        self._box.lost()

    def _take_all(self) -> None:
        position = 0
        while True:
            if len(self._begun) - position < LETTER.size:
                self._needed = LETTER.size
                break
            kind, number, _, size = LETTER.unpack_from(self._begun, position)
            end = position + LETTER.size + size
            if len(self._begun) < end:
                self._needed = end - position
                break
            with memoryview(self._begun) as view, view[position + LETTER.size : end] as wire:
                self._take(kind, number, bytes(wire))
            position = end
        del self._begun[:position]

    def _take(self, kind: int, number: int, wire: bytes) -> None:
        if kind == RECEIPT_KIND:
            self._box.confirm(number)
            return
        ends = message_ends(wire)
        size = self._box.heard(_CHANNELS[kind], number, ends, wire)
        if size:
            self._untaken.append((number + len(ends) - 1, size))
            self._untaken_bytes += size

    def _give_credit(self) -> None:
        """For all that came but what the front end has not taken: the rest of a long letter may come."""
        credit = self._credit - self._untaken_bytes
        if credit > 0:
            self._credit -= credit
            self._stream.consumed(credit)
