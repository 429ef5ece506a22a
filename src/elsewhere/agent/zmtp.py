"""Publish and subscribe as ZeroMQ speaks it: ZMTP 3.0 with the NULL mechanism, without any I/O.

The protocol is the public specification 23/ZMTP of rfc.zeromq.org, and of its successor 37/ZMTP
(version 3.1) what a peer may say to us. A connection begins with a greeting of 64 bytes from each
side, then a READY command; after that come frames. A frame is a byte of flags (1 more frames of
this message follow, 2 the length has 8 bytes instead of 1, 4 it is a command), a length, a body.

Messages are never encoded again: a subscriber hands them on as the bytes that were on the wire,
which a publisher may write to its own subscribers as they are.
"""

from __future__ import annotations

from struct import Struct
from typing import Iterable, NamedTuple, Union

_LONG = Struct(">Q")
_MORE, _LARGE, _COMMAND = 1, 2, 4
_GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_MOST_COMMAND = 65536
_MOST_ANSWERS = 1024  # pongs owed at one time
_MOST_TOPICS = 4096
_LONGEST_TOPIC = 4096

Buffer = Union[bytes, bytearray, memoryview]


class ZmtpError(Exception):
    """The peer does not speak ZMTP 3 as it must: the connection must be closed."""


class Batch(NamedTuple):
    """Whole messages: their bytes exactly as on the wire, and where in them each message ends."""

    wire: bytes
    ends: list[int]


def frames(wire: bytes | memoryview, start: int, end: int) -> list[memoryview]:
    """Return the payloads of the frames of the one message that is ``wire[start:end]``."""
    view = memoryview(wire)
    payloads = []
    while start < end:
        head = _head_at(view, start, end)
        if head is None or head[1] > end:
            raise ZmtpError("not a whole message")
        body, start = head
        payloads.append(view[body:start])
    return payloads


def message_ends(wire: bytes) -> list[int]:
    """Return where each message ends in the wire bytes of whole messages."""
    ends = []
    position, size = 0, len(wire)
    while position < size:
        head = _head_at(wire, position, size)
        if head is None or head[1] > size or wire[position] & _COMMAND:
            raise ZmtpError("not whole messages")
        if not wire[position] & _MORE:
            ends.append(head[1])
        position = head[1]
    if position != (ends[-1] if ends else 0):
        raise ZmtpError("not whole messages")
    return ends


def encode_message(frames: Iterable[bytes | memoryview]) -> bytes:
    """Return the wire bytes of one message, which has at least one frame."""
    parts = list(frames)
    if not parts:
        raise ValueError("a message has at least one frame")
    last = len(parts) - 1
    return b"".join(
        piece for i, part in enumerate(parts) for piece in (_frame_head(_MORE * (i < last), len(part)), part)
    )


class _Connection:
    """The handshake and what both sides share: commands, and bytes to send."""

    _type = b""
    _peers: tuple[bytes, ...] = ()
    _identity = b""

    def __init__(self) -> None:
        self.ready = False
        """Whether the handshake is over."""
        self.peer_type = b""
        """What kind of socket the peer is, once ready."""
        self._out = [_GREETING]
        self._answers = 0
        self._greeted = False
        self._early = b""  # a handshake partly received
        self._failure = ""

    def outgoing(self) -> bytes:
        """Take what is to be sent; empty if there is nothing."""
        out = b"".join(self._out)
        self._out.clear()
        self._answers = 0
        return out

    def _shake(self, data: bytes) -> bytes:
        """Take bytes of the handshake, and return those that came after it."""
        data = self._early + data
        if not self._greeted:
            _check_greeting(data[:64])
            if len(data) < 64:
                self._early = data
                return b""
            self._greeted = True
            properties = _property(b"Socket-Type", self._type) + _property(b"Identity", self._identity)
            self._send_command(b"READY", properties)
            data = data[64:]
        head = _head_at(data, 0, len(data)) if data else None
        if data and not data[0] & _COMMAND:
            raise ZmtpError("the peer did not begin with READY")
        if head is None or head[1] > len(data):
            self._early = data
            return b""
        self._early = b""
        name, body = _command(data[head[0] : head[1]])
        if name == b"ERROR":
            raise ZmtpError(f"the peer refused: {body[1:]!r}")
        if name != b"READY":
            raise ZmtpError("the peer did not begin with READY")
        their_type = _properties(body).get(b"socket-type", b"")
        if their_type not in self._peers:
            raise ZmtpError(f"the peer is a {their_type!r} socket, which does not go with {self._type!r}")
        self.ready = True
        self.peer_type = their_type
        self._is_ready()
        return data[head[1] :]

    def _is_ready(self) -> None:
        """Queue what follows the handshake."""

    def _send_command(self, name: bytes, body: bytes) -> None:
        command = bytes((len(name),)) + name + body
        self._out.append(_frame_head(_COMMAND, len(command)) + command)

    def _obey(self, command: bytes) -> None:
        name, body = _command(command)
        if name == b"PING":
            self._answers += 1
            if self._answers > _MOST_ANSWERS or not 2 <= len(body) <= 18:
                raise ZmtpError("a ping that is none, or too many at once")
            self._send_command(b"PONG", body[2:])
        elif name == b"ERROR":
            raise ZmtpError(f"the peer gave up: {body[1:]!r}")

    def _check_failure(self) -> None:
        if self._failure:
            raise ZmtpError(self._failure)


class _Receiver(_Connection):
    """A socket's end to which whole messages come; one of more than ``max_message`` bytes is refused.

    Bytes from the connection go into ``receive``; after any call, what ``outgoing`` returns is to
    be sent.
    """

    def __init__(self, max_message: int) -> None:
        super().__init__()
        self._limit = max_message
        self._tail: bytes | bytearray = b""  # the beginning of a message
        self._seen = 0  # where in it the next frame begins; past its end if that is still to come
        self._needed = 0  # the length of the tail below which looking again is no use

    def receive(self, data: bytes) -> Batch | None:
        """Take bytes from the peer, cut anywhere, and return the messages now complete, if any.

        No more is kept than the beginning of one message. Commands are obeyed and left out. Raises
        ``ZmtpError`` for whatever the protocol forbids, from then on always.
        """
        self._check_failure()
        try:
            if not self.ready:
                data = self._shake(data)
            return self._read(data) if data else None
        except ZmtpError as error:
            self._failure = str(error)
            raise

    def _read(self, data: bytes) -> Batch | None:
        buffer: bytes | bytearray = data
        if self._tail:
            if not isinstance(self._tail, bytearray):
                self._tail = bytearray(self._tail)
            buffer = self._tail
            buffer += data
            if len(buffer) < self._needed:
                return None
        size, limit = len(buffer), self._limit
        position = self._seen
        needed = 0
        start = 0  # of the message that position is in, in the bytes without the commands
        ends: list[int] = []
        commands: list[tuple[int, int]] = []
        removed = 0
        try:
            while True:
                flags = buffer[position]
                if flags < _LARGE:
                    after = position + buffer[position + 1] + 2
                else:
                    head = _head_at(buffer, position, size)
                    if head is None:
                        needed = position + 2
                        break
                    body, after = head
                    if flags & _COMMAND:
                        if after > size:
                            needed = after
                            break
                        self._obey(bytes(buffer[body:after]))
                        commands.append((position, after))
                        removed += after - position
                        position = after
                        continue
                    if after - removed - start > limit:
                        raise ZmtpError(f"a message of more than {limit} bytes")
                if flags & _MORE:
                    position = after
                elif after > size:
                    needed = after
                    break
                else:
                    position = after
                    after -= removed
                    if after - start > limit:
                        raise ZmtpError(f"a message of more than {limit} bytes")
                    start = after
                    ends.append(after)
        except IndexError:  # the buffer ends before the frame, or after its flags
            needed = max(position, size) + 1
        if position - removed - start > limit:
            raise ZmtpError(f"a message of more than {limit} bytes")
        if commands:
            buffer = _without(buffer, commands)
        self._seen = position - removed - start
        self._needed = needed - removed - start
        return self._split(buffer, start, ends)

    def _split(self, buffer: bytes | bytearray, end: int, ends: list[int]) -> Batch | None:
        """Keep what comes after ``end``, and return what is before it."""
        if not ends:
            self._tail = buffer
            return None
        if end == len(buffer):
            self._tail = b""
            return Batch(bytes(buffer), ends)
        if isinstance(buffer, bytes):
            self._tail = buffer[end:]
            return Batch(buffer[:end], ends)
        wire = bytes(memoryview(buffer)[:end])
        del buffer[:end]
        self._tail = buffer
        return Batch(wire, ends)


class Subscriber(_Receiver):
    """A SUB socket's end of one connection to a publisher (PUB or XPUB).

    The subscription to ``topics`` (prefixes of messages; the empty one is all) is queued as soon as
    the peer is ready.
    """

    _type = b"SUB"
    _peers = (b"PUB", b"XPUB")

    def __init__(self, topics: Iterable[bytes] = (b"",), *, max_message: int = 1 << 30) -> None:
        super().__init__(max_message)
        self._topics = tuple(topics)

    def _is_ready(self) -> None:
        self._out += [encode_message([b"\x01" + topic]) for topic in self._topics]


class Dealer(_Receiver):
    """A DEALER socket's end of one connection to a ROUTER, which knows it by ``identity``.

    While ``ready``, the wire bytes of whole messages may be sent to it as they are.
    """

    _type = b"DEALER"
    _peers = (b"ROUTER",)

    def __init__(self, identity: bytes, *, max_message: int = 1 << 30) -> None:
        super().__init__(max_message)
        self._identity = identity


class PublisherPeer(_Connection):
    """A PUB socket's end of one connection to a subscriber (SUB or XSUB).

    Bytes from the connection go into ``receive``; after any call, what ``outgoing`` returns is to
    be sent. Then, while ``ready``, the wire bytes of whole messages may be sent to it as they are.
    """

    _type = b"PUB"
    _peers = (b"SUB", b"XSUB")

    def __init__(self) -> None:
        super().__init__()
        self.topics: set[bytes] = set()
        """The prefixes that the peer is subscribed to now."""
        self._rest = bytearray()
        self._inside = False  # a message of which a first frame was seen

    def receive(self, data: bytes) -> bool:
        """Take bytes from the peer, cut anywhere, and return whether ``topics`` may have changed.

        Messages that are no subscriptions are ignored. Raises ``ZmtpError`` for whatever the
        protocol forbids, from then on always, and for frames of more than 64 KiB.
        """
        self._check_failure()
        try:
            self._rest += data if self.ready else self._shake(data)
            return self._read()
        except ZmtpError as error:
            self._failure = str(error)
            raise

    def _read(self) -> bool:
        rest = self._rest
        position, size, changed = 0, len(rest), False
        while position < size:
            head = _head_at(rest, position, size)
            if head is None:
                break
            body, after = head
            if after - body > _MOST_COMMAND:
                raise ZmtpError(f"a frame of {after - body} bytes from a subscriber")
            if after > size:
                break
            flags = rest[position]
            if flags & _COMMAND:
                name, topic = _command(bytes(rest[body:after]))
                if name == b"SUBSCRIBE" or name == b"CANCEL":
                    self._subscribe(topic, name == b"SUBSCRIBE")
                    changed = True
                else:
                    self._obey(bytes(rest[body:after]))
            else:
                if not self._inside and not flags & _MORE and after > body and rest[body] < 2:
                    self._subscribe(bytes(rest[body + 1 : after]), rest[body] == 1)
                    changed = True
                self._inside = flags & _MORE != 0
            position = after
        del rest[:position]
        return changed

    def _subscribe(self, topic: bytes, wanted: bool) -> None:
        if not wanted:
            self.topics.discard(topic)
            return
        self.topics.add(topic)
        if len(self.topics) > _MOST_TOPICS or len(topic) > _LONGEST_TOPIC:
            raise ZmtpError(f"more than {_MOST_TOPICS} subscriptions, or one of {len(topic)} bytes")


def _head_at(buffer: Buffer, position: int, size: int) -> tuple[int, int] | None:
    """Return where the body of the frame at ``position`` begins and ends; None if not yet known."""
    flags = buffer[position]
    if flags > 7 or flags & (_MORE | _COMMAND) == (_MORE | _COMMAND):
        raise ZmtpError(f"not a frame: flags {flags:#x}")
    body = position + (9 if flags & _LARGE else 2)
    if body > size:
        return None
    length: int = _LONG.unpack_from(buffer, position + 1)[0] if flags & _LARGE else buffer[position + 1]
    if flags & _COMMAND and length > _MOST_COMMAND:
        raise ZmtpError(f"a command of {length} bytes")
    return body, body + length


def _frame_head(flags: int, length: int) -> bytes:
    return bytes((flags, length)) if length < 256 else bytes((flags | _LARGE,)) + _LONG.pack(length)


def _without(buffer: Buffer, parts: list[tuple[int, int]]) -> bytes:
    view = memoryview(buffer)
    begins = [0, *(end for _, end in parts)]
    ends = [*(start for start, _ in parts), len(view)]
    return b"".join(view[begin:end] for begin, end in zip(begins, ends))


def _check_greeting(greeting: bytes) -> None:
    """Raise unless this is how a greeting of version 3 begins, or all of one."""
    if greeting[:1] not in (b"", b"\xff") or (len(greeting) > 9 and not greeting[9] & 1):
        raise ZmtpError("this is not a peer that speaks ZMTP")
    if len(greeting) > 10 and greeting[10] < 3:
        raise ZmtpError("the peer speaks an older version of ZMTP than 3")
    if len(greeting) == 64 and greeting[12:32].rstrip(b"\0") != b"NULL":
        raise ZmtpError(f"the peer asks for the mechanism {greeting[12:32]!r}")


def _command(frame: bytes) -> tuple[bytes, bytes]:
    if not frame or not 0 < frame[0] < len(frame):
        raise ZmtpError("a command without a name")
    return frame[1 : 1 + frame[0]], frame[1 + frame[0] :]


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value


def _properties(body: bytes) -> dict[bytes, bytes]:
    """Return the metadata of a READY command; names are compared without regard to case."""
    found = {}
    position = 0
    while position < len(body):
        name_end = position + 1 + body[position]
        value = name_end + 4
        end = value + int.from_bytes(body[name_end:value], "big")
        if value > len(body) or end > len(body):
            raise ZmtpError("the peer's READY is cut short")
        found[body[position + 1 : name_end].lower()] = body[value:end]
        position = end
    return found
