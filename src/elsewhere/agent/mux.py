"""One connection that carries many streams: yamux over an asyncio transport, at both ends."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Callable, Deque, Dict, List, Optional, cast

from . import yamux

CLOSED, RESET, LOST = "closed", "reset", "lost"
"""How a stream can end: closed by the far side, broken off by it, or its connection was lost."""


class StreamHandler:
    """What the owner of a stream overrides. All are called from the event loop."""

    def stream_data(self, data: bytes) -> None:
        """Bytes came; give credit for them with ``Stream.consumed`` once they are taken."""

    def stream_credit(self, delta: int) -> None:
        """The far side has taken ``delta`` more of the bytes that were written."""

    def stream_drained(self) -> None:
        """Everything written so far is on its way: the stream's queue is empty."""

    def stream_ended(self, how: str) -> None:
        """The far side is done: ``how`` is CLOSED (its half only), RESET or LOST."""


class Stream:
    """One stream of a Mux. After the connection's loss its methods do nothing."""

    def __init__(self, mux: Mux, stream_id: int) -> None:
        self.id = stream_id
        self.handler = StreamHandler()
        self.queued = 0
        self._mux: Optional[Mux] = mux
        self._queue: Deque[memoryview] = deque()
        self._closing = False

    def write(self, data: bytes) -> None:
        """Queue bytes; they leave as the far side's window allows. ``queued`` counts those waiting."""
        if self._mux is None or self._closing or not data:
            return
        self._queue.append(memoryview(data))
        self.queued += len(data)
        self._send()

    def push(self) -> None:
        """The window has grown: send what it takes, and tell the handler when all has left."""
        if self._mux is not None and self._queue:
            self._send()
            if not self._queue and not self._closing:
                self.handler.stream_drained()

    def _send(self) -> None:
        mux = self._mux
        assert mux is not None
        while self._queue:
            head = self._queue[0]
            taken = mux.session.send(self.id, head)
            self.queued -= taken
            if taken < len(head):
                self._queue[0] = head[taken:]
                break
            self._queue.popleft()
        if self._closing and not self._queue:
            mux.session.close(self.id)
        mux.flush_soon()

    def consumed(self, count: int) -> None:
        """Say that ``count`` received bytes were taken, so that as many more may come."""
        if self._mux is not None and count:
            self._mux.session.consumed(self.id, count)
            self._mux.flush_soon()

    def close(self) -> None:
        """Close our half once everything written has left."""
        if self._mux is None or self._closing:
            return
        self._closing = True
        if not self._queue:
            self._mux.session.close(self.id)
            self._mux.flush_soon()

    def reset(self) -> None:
        """Break the stream off at once, in both directions."""
        if self._mux is None:
            return
        self._mux.session.reset(self.id)
        self._mux.flush_soon()
        self._mux.forget(self.id)
        self.lost()

    def lost(self) -> None:
        """The connection is gone: drop what was queued."""
        self._mux = None
        self._queue.clear()
        self.queued = 0


class Mux(asyncio.Protocol):
    """The protocol object of one connection.

    ``accept`` is called with each stream that the far side opens; ``lost`` once, with the reason,
    when the connection is over. A silent connection is asked for a sign of life after ``keepalive``
    seconds and aborted after three times as many. ``trust`` is how many bytes may come in all; None
    when there is no such limit any more.
    """

    def __init__(
        self,
        *,
        client: bool,
        accept: Callable[[Stream], None],
        lost: Callable[[str], None],
        keepalive: float = 15.0,
        trust: Optional[int] = None,
    ) -> None:
        self.session = yamux.Session(client=client)
        self.transport: Optional[asyncio.Transport] = None
        self.received = 0
        self.trust = trust
        self.closing = False
        self.before_flush: Optional[Callable[[], None]] = None
        """Called before what is queued leaves, for whoever holds something back to send it along."""
        self._accept = accept
        self._lost = lost
        self._keepalive = keepalive
        self._streams: Dict[int, Stream] = {}
        self._flushing = False
        self._reason = ""
        self._timer: Optional[asyncio.TimerHandle] = None
        self._seen = 0
        self._silent_turns = 0

    def open(self, *, window: Optional[int] = None) -> Stream:
        """Open a stream towards the far side."""
        stream = Stream(self, self.session.open(window=window))
        self._streams[stream.id] = stream
        self.flush_soon()
        return stream

    def forget(self, stream_id: int) -> None:
        """Send no more events to this stream's handler."""
        self._streams.pop(stream_id, None)

    def abort(self, reason: str) -> None:
        """End the connection at once, also one that is not made yet. What still comes is ignored."""
        self._reason = self._reason or reason
        self.closing = True
        if self.transport is not None:
            self.transport.abort()

    def drop(self, reason: str) -> None:
        """End the connection, and have everybody hear of it before this returns."""
        self.abort(reason)
        if self.transport is not None:
            self.connection_lost(None)

    def close(self, reason: str) -> None:
        """End the connection once what is queued has left. What still comes is ignored."""
        self._reason = self._reason or reason
        self._flush()
        self.closing = True
        if self.transport is not None:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of it
        if self.closing:
            transport.abort()
            return
        self.transport = transport
        self._timer = asyncio.get_running_loop().call_later(self._keepalive, self._beat)
        self.flush_soon()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """End: every stream hears of it, then the owner."""
        if self.transport is None:
            return
        self.transport = None
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.lost()
        for stream in streams.values():
            stream.handler.stream_ended(LOST)
        lost, self._lost, self._accept = self._lost, _nothing, _nothing
        lost(self._reason or (str(exc) if exc else "the far side closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Hand each event to the stream it belongs to."""
        if self.closing:
            return
        self.received += len(data)
        if self.trust is not None and self.received > self.trust:
            self.abort("more than %d bytes from somebody who has not said who it is" % self.trust)
            return
        try:
            events = self.session.receive(data)
        except yamux.YamuxError as error:
            self.abort("protocol error: %s" % error)
            return
        self._hand_out(events)
        self.flush_soon()

    def _hand_out(self, events: List[yamux.Event]) -> None:
        for event in events:
            if self.closing:
                return
            self._dispatch(event)

    def _dispatch(self, event: yamux.Event) -> None:
        if isinstance(event, yamux.Data):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.handler.stream_data(event.data)
            else:
                self.session.consumed(event.stream_id, len(event.data))
        elif isinstance(event, yamux.Credit):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.handler.stream_credit(event.delta)
                stream.push()
        elif isinstance(event, yamux.Widened):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.push()
        elif isinstance(event, yamux.Opened):
            stream = self._streams[event.stream_id] = Stream(self, event.stream_id)
            self._accept(stream)
        elif isinstance(event, yamux.Closed):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.handler.stream_ended(CLOSED)
        elif isinstance(event, yamux.Reset):
            stream = self._streams.pop(event.stream_id, None)
            if stream is not None:
                stream.lost()
                stream.handler.stream_ended(RESET)
        elif isinstance(event, yamux.GoneAway):
            self.close("the far side said goodbye")

    def flush_soon(self) -> None:
        """Write what is queued at the end of this turn of the loop, all at once."""
        if not self._flushing and self.transport is not None:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        if self.before_flush is not None:
            self.before_flush()
        self._flushing = False
        buffers = self.session.outgoing()
        if buffers and self.transport is not None and not self.transport.is_closing() and not self.closing:
            self.transport.writelines(buffers)

    def _beat(self) -> None:
        if self.transport is None:
            return
        if self.received == self._seen:
            self._silent_turns += 1
            if self._silent_turns > 2:
                self.abort("nothing heard for %g s" % (3 * self._keepalive))
                return
        else:
            self._silent_turns = 0
        self._seen = self.received
        if self._silent_turns:
            self.session.ping()
            self.flush_soon()
        self._timer = asyncio.get_running_loop().call_later(self._keepalive, self._beat)


def _nothing(_: object) -> None:
    """The connection is over, and holds nobody any more."""
