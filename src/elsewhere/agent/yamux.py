"""Many byte streams over one connection: the framing of yamux, version 0, without any I/O.

The protocol is the public specification of hashicorp/yamux (``spec.md`` there). Every frame has a
header of 12 bytes: version, type, flags, stream id, length; all of it big-endian. Each stream has a
window for each direction, 256 KiB to begin with, which only its receiver can make larger.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple, Union

INITIAL_WINDOW = 262144
"""What each side may send on a new stream, by the specification."""

_HEADER = Struct(">BBHII")
_DATA, _WINDOW, _PING, _GO_AWAY = range(4)
_SYN, _ACK, _FIN, _RST = 1, 2, 4, 8
_MOST = 0xFFFFFFFF
_SMALL = 8192  # up to here one copy is cheaper than one more buffer
_MOST_ANSWERS = 4096  # answers owed at one time; a peer that asks for more floods us


class YamuxError(Exception):
    """The peer broke the protocol: the connection must be closed."""


class NoMoreStreams(Exception):
    """No stream can be opened: the peer goes away, or as many as are allowed are open."""


class Opened(NamedTuple):
    """The peer opened a stream; it is accepted already. ``reset`` it if it is not wanted."""

    stream_id: int


class Data(NamedTuple):
    """Bytes of a stream, in order. Say ``consumed`` when they are taken."""

    stream_id: int
    data: bytes


class Credit(NamedTuple):
    """The peer consumed ``delta`` more of the bytes that we sent; never more than we did send."""

    stream_id: int
    delta: int


class Widened(NamedTuple):
    """The peer's window for a stream grew by ``delta``, which acknowledges nothing."""

    stream_id: int
    delta: int


class Closed(NamedTuple):
    """The peer sends no more on this stream; it may still read."""

    stream_id: int


class Reset(NamedTuple):
    """The peer dropped the stream, both ways; it is forgotten."""

    stream_id: int


class Pong(NamedTuple):
    """The peer answered the ping of this value."""

    value: int


class GoneAway(NamedTuple):
    """The peer takes no new streams: 0 it ends normally, 1 we broke the protocol, 2 its own fault."""

    code: int


Event = Union[Opened, Data, Credit, Widened, Closed, Reset, Pong, GoneAway]
Buffer = Union[bytes, memoryview]


class _Stream:
    __slots__ = (
        "allowance", "due", "finished", "finishing", "id", "sendable", "unacknowledged", "unanswered",
        "unconsumed", "window",
    )  # fmt: skip

    def __init__(self, stream_id: int, window: int, unanswered: bool) -> None:
        self.id = stream_id
        self.window = window
        self.allowance = window  # what the peer may still send
        self.unconsumed = 0  # delivered, not yet consumed
        self.due = 0  # consumed, credit not yet returned
        self.sendable = INITIAL_WINDOW
        self.unacknowledged = 0
        self.unanswered = unanswered  # our SYN has no ACK yet
        self.finishing = False  # we sent FIN
        self.finished = False  # the peer sent FIN


class Session:
    """One end of a yamux connection.

    Bytes from the connection go into ``receive``; after any call, what ``outgoing`` returns is to
    be written to it. ``window`` is the receive window of every stream, unless ``open`` says more.
    ``max_frame`` is the largest payload that we send in one frame, so that streams take turns.
    ``max_streams`` may be open at once from each side. Calls for a stream that is over do nothing.
    """

    def __init__(
        self,
        *,
        client: bool,
        window: int = INITIAL_WINDOW,
        max_frame: int = 65536 * 4,
        max_streams: int = 1024,
    ) -> None:
        if max_frame < 1:
            raise ValueError(f"max_frame is {max_frame}, and must be at least 1")
        self._window = self._largest = _checked_window(window)
        self._max_frame = max_frame
        self._max_streams = max_streams
        self._streams: dict[int, _Stream] = {}
        self._ours = 0  # open streams that we opened
        self._next_id = 1 if client else 2
        self._highest = 0 if client else -1  # the peer's highest stream id so far
        self._skipped: set[int] = set()  # ids below it that the peer has not used
        self._out: list[Buffer] = []
        self._answers = 0
        self._ping_value = 0
        self._leaving = False  # we sent GoAway
        self._left_alone = False  # the peer sent GoAway
        self._failure = ""
        self._head = b""  # a header partly received
        self._body = 0  # what is still to come of a data frame
        self._body_stream: _Stream | None = None  # whose it is; None: nobody's, to be skipped
        self._body_ends = False  # the frame had FIN

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the peer, cut anywhere, and return what they mean, in order.

        Payload is returned as it comes in: never more than a header is kept. Raises ``YamuxError``
        for whatever the protocol forbids, from then on always; a GoAway is queued then.
        """
        if self._failure:
            raise YamuxError(self._failure)
        events: list[Event] = []
        try:
            self._read(data, events)
        except YamuxError as error:
            self._failure = str(error)
            self._queue(_GO_AWAY, 0, 0, 1)
            raise
        return events

    def open(self, *, window: int | None = None) -> int:
        """Open a stream and return its id; bytes may be sent on it at once.

        ``window`` is how much the peer may send ahead of us, at least 256 KiB. Raises
        ``NoMoreStreams``.
        """
        window = self._window if window is None else _checked_window(window)
        if self._left_alone:
            raise NoMoreStreams("the peer goes away and takes no new streams")
        if self._ours >= self._max_streams:
            raise NoMoreStreams(f"{self._ours} streams are open, and no more are allowed")
        if self._next_id > _MOST:
            raise NoMoreStreams("all stream ids of this connection are used")
        stream_id = self._next_id
        self._next_id += 2
        self._ours += 1
        self._largest = max(self._largest, window)
        self._streams[stream_id] = _Stream(stream_id, window, unanswered=True)
        self._queue(_WINDOW, _SYN, stream_id, window - INITIAL_WINDOW)
        return stream_id

    def writable(self, stream_id: int) -> int:
        """Return how many bytes may be sent now; 0 for a stream that is over or that we closed."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None or stream.finishing else stream.sendable

    def send(self, stream_id: int, data: Buffer) -> int:
        """Queue as much of ``data`` as is writable, and return how much that was.

        Large data is not copied: a buffer that can change must not, until it is written.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.finishing:
            return 0
        size = min(len(data), stream.sendable)
        if not size:
            return 0
        stream.sendable -= size
        stream.unacknowledged += size
        if size < len(data) or size > self._max_frame:
            data = memoryview(data)
        for start in range(0, size, self._max_frame):
            part = data[start : min(start + self._max_frame, size)] if type(data) is memoryview else data
            head = _HEADER.pack(0, _DATA, 0, stream_id, len(part))
            if size <= _SMALL:
                self._out.append(head + part)
            else:
                self._out += (head, part)
        return size

    def consumed(self, stream_id: int, n: int) -> None:
        """Say that ``n`` delivered bytes are taken: the peer may send as many more.

        It is told once half of the window is due. More than was delivered is a ``ValueError``.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if not 0 <= n <= stream.unconsumed:
            raise ValueError(f"{n} bytes consumed, of {stream.unconsumed} delivered on stream {stream_id}")
        stream.unconsumed -= n
        stream.due += n
        if stream.due * 2 >= stream.window:
            self.flush_credit(stream_id)

    def flush_credit(self, stream_id: int) -> None:
        """Tell the peer at once of all that was consumed; nothing is sent if it knows."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.due:
            self._queue(_WINDOW, 0, stream_id, stream.due)
            stream.allowance += stream.due
            stream.due = 0

    def close(self, stream_id: int) -> None:
        """Send no more on this stream; what the peer sends still comes. May be called again."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.finishing:
            self.flush_credit(stream_id)  # the last chance, if the peer has closed already
            stream.finishing = True
            self._queue(_WINDOW, _FIN, stream_id, 0)
            if stream.finished:
                self._forget(stream)

    def reset(self, stream_id: int) -> None:
        """Drop the stream, both ways, and ignore what the peer still sends on it."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._queue(_WINDOW, _RST, stream_id, 0)
            self._forget(stream)

    def ping(self) -> int:
        """Ask for a sign of life; the ``Pong`` will bear the value returned here."""
        value = self._ping_value
        self._ping_value = (value + 1) & _MOST
        self._queue(_PING, _SYN, 0, value)
        return value

    def go_away(self, code: int) -> None:
        """Refuse new streams from now on; those that are open go on."""
        self._leaving = True
        self._queue(_GO_AWAY, 0, 0, code)

    def outgoing(self) -> list[Buffer]:
        """Take all that is to be written, in order, as buffers for ``writelines``."""
        out = self._out
        self._out = []
        self._answers = 0
        return out

    def _queue(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        self._out.append(_HEADER.pack(0, kind, flags, stream_id, length))

    def _answer(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        self._answers += 1
        if self._answers > _MOST_ANSWERS:
            raise YamuxError(f"the peer asks for more than {_MOST_ANSWERS} answers at once")
        self._queue(kind, flags, stream_id, length)

    def _forget(self, stream: _Stream) -> None:
        del self._streams[stream.id]
        if self._is_ours(stream.id):
            self._ours -= 1
        if self._body_stream is stream:
            self._body_stream = None

    def _is_ours(self, stream_id: int) -> bool:
        return (stream_id ^ self._next_id) & 1 == 0

    def _read(self, data: bytes, events: list[Event]) -> None:
        position, end = 0, len(data)
        if self._head:
            missing = 12 - len(self._head)
            head = self._head + data[:missing]
            if len(head) < 12:
                self._head = head
                return
            self._head = b""
            position = missing
            self._frame(head, 0, events)
        while True:
            if self._body:
                take = min(self._body, end - position)
                if not take:
                    return
                stream = self._body_stream
                self._body -= take
                if stream is not None:
                    stream.unconsumed += take
                    chunk = data if take == end else data[position : position + take]
                    events.append(Data(stream.id, chunk))
                    if not self._body and self._body_ends:
                        self._finish(stream, events)
                position += take
            if end - position < 12:
                break
            self._frame(data, position, events)
            position += 12
        self._head = data[position:]

    def _frame(self, data: bytes, position: int, events: list[Event]) -> None:
        version, kind, flags, stream_id, length = _HEADER.unpack_from(data, position)
        if version or kind > _GO_AWAY or flags > 15:
            raise YamuxError(f"not a frame of yamux 0: version {version}, type {kind}, flags {flags:#x}")
        if kind > _WINDOW:
            self._session_frame(kind, flags, stream_id, length, events)
            return
        if flags & _SYN:
            self._accept(stream_id, events)
        stream = self._streams.get(stream_id)
        if stream is None:
            self._late_frame(kind, stream_id, length)
            return
        if kind == _DATA:
            if stream.finished and length:
                raise YamuxError(f"data on stream {stream_id} after its end")
            if length > stream.allowance:
                raise YamuxError(f"{length} bytes on stream {stream_id}: {stream.allowance} are allowed")
            stream.allowance -= length
            self._body = length
            self._body_stream = stream
            self._body_ends = flags & _FIN != 0
            if not flags:
                return
        if flags & _RST:
            self._forget(stream)
            events.append(Reset(stream_id))
            return
        if flags & _ACK:
            if not stream.unanswered:
                raise YamuxError(f"the peer accepted stream {stream_id}, which did not wait for that")
            stream.unanswered = False
        if kind == _WINDOW and length:
            self._widen(stream, length, flags & (_SYN | _ACK) != 0, events)
        if flags & _FIN and (kind == _WINDOW or not length):
            self._finish(stream, events)

    def _session_frame(self, kind: int, flags: int, stream_id: int, length: int, events: list[Event]) -> None:
        if stream_id:
            raise YamuxError(f"a frame of type {kind} that names stream {stream_id}")
        if kind == _GO_AWAY:
            self._left_alone = True
            events.append(GoneAway(length))
        elif flags == _SYN:
            self._answer(_PING, _ACK, 0, length)
        elif flags == _ACK:
            events.append(Pong(length))
        else:
            raise YamuxError(f"a ping with flags {flags:#x}")

    def _accept(self, stream_id: int, events: list[Event]) -> None:
        if not stream_id or self._is_ours(stream_id):
            raise YamuxError(f"the peer opened stream {stream_id}, which is not its own to open")
        if stream_id > self._highest:
            # Go's implementation can send the SYNs of streams opened at once out of order.
            if stream_id - self._highest > 2 * (self._max_streams - len(self._skipped) + 1):
                raise YamuxError(f"the peer opened stream {stream_id} after {self._highest}")
            self._skipped.update(range(self._highest + 2, stream_id, 2))
            self._highest = stream_id
        elif stream_id in self._skipped:
            self._skipped.remove(stream_id)
        else:
            raise YamuxError(f"the peer opened stream {stream_id} twice")
        if self._leaving:
            self._answer(_WINDOW, _RST, stream_id, 0)
            return
        if len(self._streams) - self._ours >= self._max_streams:
            raise YamuxError(f"the peer opened more than {self._max_streams} streams")
        self._streams[stream_id] = _Stream(stream_id, self._window, unanswered=False)
        events.append(Opened(stream_id))
        self._answer(_WINDOW, _ACK, stream_id, self._window - INITIAL_WINDOW)

    def _late_frame(self, kind: int, stream_id: int, length: int) -> None:
        used = stream_id < self._next_id if self._is_ours(stream_id) else stream_id <= self._highest
        if not stream_id or not used or stream_id in self._skipped:
            raise YamuxError(f"a frame for stream {stream_id}, which was never opened")
        if kind == _DATA:
            if length > self._largest:
                raise YamuxError(f"a frame of {length} bytes on stream {stream_id}, which is over")
            self._body = length
            self._body_stream = None

    def _widen(self, stream: _Stream, delta: int, extra: bool, events: list[Event]) -> None:
        if stream.sendable + delta > _MOST:
            raise YamuxError(f"the window of stream {stream.id} is larger than any can be")
        stream.sendable += delta
        credit = 0 if extra else min(delta, stream.unacknowledged)
        if credit:
            stream.unacknowledged -= credit
            events.append(Credit(stream.id, credit))
        if delta > credit:
            events.append(Widened(stream.id, delta - credit))

    def _finish(self, stream: _Stream, events: list[Event]) -> None:
        if stream.finished:
            raise YamuxError(f"the peer closed stream {stream.id} twice")
        stream.finished = True
        events.append(Closed(stream.id))
        if stream.finishing:
            self._forget(stream)


def _checked_window(window: int) -> int:
    if not INITIAL_WINDOW <= window <= _MOST:
        raise ValueError(f"a window of {window} bytes: it must be {INITIAL_WINDOW} at least, by the protocol")
    return window
