"""One kernel's iopub for its local subscribers: a ZMTP PUB that waits for slow readers, and drops nothing.

Messages pass as they came from the kernel's socket. What no subscriber has taken yet is bounded by
``HELD``; above it the link gives no more credit, and the agent's spool is where output waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import cast

from .agent.zmtp import PublisherPeer, ZmtpError, frames, message_ends

HELD = 4 * 1024 * 1024
PATIENCE = 60.0
"""Seconds that other subscribers wait for one that takes nothing, before it is cut off."""

logger = logging.getLogger(__name__)


class Publisher:
    """Gives batches to subscribers. ``receipt`` hears the number up to which all have taken them,
    ``room`` hears that ``crowded`` has become false.

    Before the first subscriber comes everything is held. When all have gone, messages are dropped,
    as by any PUB socket. ``delivered`` is the number that ``receipt`` heard last.
    """

    def __init__(self, receipt: Callable[[int], None], room: Callable[[], None]) -> None:
        self.last = 0
        self.delivered = 0
        self._welcome = b""
        self._receipt = receipt
        self._room = room
        self._connections: set[Subscriber] = set()
        self._early: deque[tuple[int, bytes]] | None = deque()
        self._early_bytes = 0
        self._subscribers: set[Subscriber | Tap] = set()
        self._was_crowded = False

    def greet(self, welcome: bytes) -> None:
        """Give the kernel's welcome (JEP 65) to each subscriber, before anything else or not at all."""
        if welcome and not self._welcome and not self.last:
            for one in self._subscribers:
                one.send(welcome)
        self._welcome = welcome

    @property
    def crowded(self) -> bool:
        """Whether so much waits for a subscriber that no more should come."""
        return self._early_bytes > HELD or any(one.waiting > HELD for one in self._subscribers)

    def publish(self, last: int, wire: bytes) -> None:
        """Give out whole messages, the last of them numbered ``last``."""
        self.last = last
        if self._early is not None:
            self._early.append((last, wire))
            self._early_bytes += len(wire)
        for one in list(self._subscribers):
            one.give(last, wire)
        self.settle()

    def settle(self) -> None:
        """Work out anew what has been delivered, and whether there is room."""
        if self._early is None:
            number = min((one.taken for one in self._subscribers), default=self.last)
            if number > self.delivered:
                self.delivered = number
                self._receipt(number)
        was_crowded, self._was_crowded = self._was_crowded, self.crowded
        if self._was_crowded:
            for one in self._subscribers:
                if one.waiting > HELD:
                    one.lose_patience_in(PATIENCE)
        elif was_crowded:
            self._room()

    def connect(self) -> Subscriber:
        """Return the protocol object for a new local connection."""
        return Subscriber(self)

    def tap(self, heard: Callable[[int, bytes], None]) -> Tap:
        """Return a subscriber within this process, which hears all from now on."""
        tap = Tap(self, heard)
        self.subscribed(tap)
        return tap

    def connected(self, one: Subscriber) -> None:
        """A connection was made, which is subscribed to nothing yet."""
        self._connections.add(one)

    def others_than(self, one: Subscriber | Tap) -> bool:
        """Whether anybody else is subscribed."""
        return bool(self._subscribers - {one})

    def subscribed(self, one: Subscriber | Tap) -> None:
        """A connection has subscribed to something."""
        if one not in self._subscribers:
            self._subscribers.add(one)
            one.send(self._welcome)
            one.taken = self.last
            early, self._early = self._early, None
            if early:
                one.taken = early[0][0] - 1
                self._early_bytes = 0
                for last, wire in early:
                    one.give(last, wire)
        self.settle()

    def left(self, one: Subscriber | Tap) -> None:
        """A connection is over."""
        if isinstance(one, Subscriber):
            self._connections.discard(one)
        self._subscribers.discard(one)
        self.settle()

    def close(self) -> None:
        """Close all connections."""
        for one in list(self._connections):
            one.close()


class Tap:
    """A subscriber within this process. ``heard`` gets whole messages and the number of the last;
    ``took`` gives back up to which they are done with."""

    def __init__(self, publisher: Publisher, heard: Callable[[int, bytes], None]) -> None:
        self.taken = 0
        self.waiting = 0
        self._publisher = publisher
        self._heard = heard
        self._untaken: deque[tuple[int, int]] = deque()

    def give(self, last: int, wire: bytes) -> None:
        """Pass messages on."""
        self._untaken.append((last, len(wire)))
        self.waiting += len(wire)
        self._heard(last, wire)

    def took(self, number: int) -> None:
        """All messages up to this number are done with."""
        while self._untaken and self._untaken[0][0] <= number:
            self.taken, size = self._untaken.popleft()
            self.waiting -= size
        self._publisher.settle()

    def send(self, data: bytes) -> None:
        """The kernel's welcome answers sockets, and this is none."""

    def lose_patience_in(self, seconds: float) -> None:
        """Its owner closes it when its front end has gone."""

    def close(self) -> None:
        """Hear no more."""
        self._publisher.left(self)


class Subscriber(asyncio.Protocol):
    """The connection of one local SUB socket."""

    def __init__(self, publisher: Publisher) -> None:
        self.taken = 0
        self.waiting = 0
        self._publisher = publisher
        self._peer = PublisherPeer()
        self._transport: asyncio.Transport | None = None
        self._queue: deque[tuple[int, bytes]] = deque()
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of it
        self._transport = transport
        self._publisher.connected(self)
        self.send(self._peer.outgoing())

    def data_received(self, data: bytes) -> None:
        """Handshake and subscriptions."""
        before = set(self._peer.topics)
        try:
            self._peer.receive(data)
        except ZmtpError as error:
            logger.warning("closed an iopub connection: %s", error)
            self.close()
            return
        self.send(self._peer.outgoing())
        if self._peer.topics - before:
            self._publisher.subscribed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Over."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._publisher.left(self)

    def pause_writing(self) -> None:
        """The reader is slow."""
        self._paused = True

    def resume_writing(self) -> None:
        """The reader has caught up."""
        self._paused = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and not self._paused:
            last, wire = self._queue.popleft()
            self.waiting -= len(wire)
            self._write(last, wire)
        self._publisher.settle()

    def give(self, last: int, wire: bytes) -> None:
        """Take messages for the reader."""
        if self._paused:
            self._queue.append((last, wire))
            self.waiting += len(wire)
        else:
            self._write(last, wire)

    def send(self, data: bytes) -> None:
        """Write bytes that are not messages of the kernel."""
        if data and self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def lose_patience_in(self, seconds: float) -> None:
        """End the connection, unless the reader takes something within that time, or is alone."""
        if self._timer is None and self._transport is not None:
            self._unsent = self._transport.get_write_buffer_size()
            self._timer = asyncio.get_running_loop().call_later(seconds, self._cut_off, seconds)

    def _cut_off(self, seconds: float) -> None:
        self._timer = None
        took_something = self._transport is None or self._transport.get_write_buffer_size() < self._unsent
        if took_something or not self._publisher.others_than(self):
            self.lose_patience_in(seconds)
            return
        logger.warning("cut off an iopub subscriber: it took nothing for %g s while others waited", seconds)
        self.close()

    def _write(self, last: int, wire: bytes) -> None:
        self.taken = last
        if b"" in self._peer.topics:
            self.send(wire)
            return
        start = 0
        for end in message_ends(wire):
            topic = bytes(frames(wire, start, end)[0])
            if any(topic.startswith(prefix) for prefix in self._peer.topics):
                self.send(wire[start:end])
            start = end
