"""What agent and home say to each other on the talk stream: length-prefixed JSON, one word each.

Protocol 2. The agent opens the talk stream and says ``Hello``; home answers ``Welcome`` or
``Refused``. Then the agent sends a ``Report`` whenever its state changes and an ``Ack`` for each
``Command``; a report is a whole state, so the last one is enough after a reconnection. Home sends
commands, numbered, and sends those again that were not acknowledged.
Home opens one stream for each pipe and one for iopub, each beginning with an ``Opening`` that the
agent answers with an ``Accepted``. Since protocol 2 it may open one for each mailbox: all that
passes between one front end and the kernel, as letters (``LETTER``) both ways.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Type, TypeVar

PROTOCOL = 2
SPOKEN = (1, 2)
MAILBOXES = 2
"""The protocol from which on agents have mailboxes."""
MAX_WORD = 64 * 1024 * 1024
MAX_HELLO = 16 * 1024

_LENGTH = struct.Struct(">I")

BATCH = struct.Struct(">QII")
"""Before each batch on the iopub stream: number of its first message, count, bytes that follow."""

RECEIPT = struct.Struct(">Q")
"""What home sends back on the iopub stream: the number up to which messages were delivered."""

LETTER = struct.Struct(">BQII")
"""Before each letter on a mailbox's stream: kind, number, count, bytes that follow.

From home, a request has a channel's kind, the next number, and the wire bytes of one message. From
the agent, ``count`` messages of a channel, the first of them with this number; the numbers rise, with
gaps. RECEIPT says, in both directions, that all up to this number has been taken for good.
"""

RECEIPT_KIND = 0
CHANNEL_KINDS = {"shell": 1, "control": 2, "stdin": 3, "iopub": 4}


class WordsError(Exception):
    """The peer said something that is not a word of this protocol."""


class Hello(NamedTuple):
    """The agent's first word. ``secret`` is the agent's own, the same for all its hellos."""

    protocol: int
    home_id: str
    kernel_id: str
    launch: int
    token: str
    secret: str
    agent: str
    host: str


class Welcome(NamedTuple):
    """Home's yes. ``instance`` names the life of this home; ``pipes`` are those it still holds."""

    protocol: int
    instance: str
    pipes: List[str]


class Refused(NamedTuple):
    """Home's no. ``final``: asking again is pointless, the job must end."""

    reason: str
    final: bool


class Report(NamedTuple):
    """The agent's whole state. ``phase`` is that of its kernel: ``starting``, ``ready`` or ``exited``;
    or ``ended``, the last word before the job is over.

    ``start`` numbers the kernel processes of this job; ``exit_code`` is negative for a signal;
    ``step`` says how far the kernel came (``exec``: it could not be started, ``exit``: it ended).
    ``execution_state`` is the kernel's last status, ``cpu`` in seconds, ``rss`` in bytes; ``idle`` the
    seconds since the kernel was last in use, negative if the agent does not tell.
    """

    start: int
    phase: str
    pid: Optional[int] = None
    exit_code: Optional[int] = None
    step: str = ""
    reason: str = ""
    log: List[str] = []
    warnings: List[str] = []
    execution_state: str = "unknown"
    cpu: float = 0.0
    rss: int = 0
    spooled: int = 0
    idle: float = -1.0
    welcome: str = ""


class Command(NamedTuple):
    """Something home wants done once: ``start``, ``signal``, ``end``."""

    number: int
    verb: str
    signum: int = 0
    order: Optional[Dict[str, Any]] = None
    grace: float = 0.0


class Ack(NamedTuple):
    """The command with this number was carried out; ``error`` says why not, else is empty."""

    number: int
    error: str = ""


class Opening(NamedTuple):
    """The first word of a stream that home opens. ``received``: bytes or messages home has.

    ``pipe`` is the name of the pipe or of the mailbox.
    """

    channel: str
    pipe: str
    received: int


class Accepted(NamedTuple):
    """The agent's answer to an opening: the bytes of this pipe, or the requests to this mailbox in
    this life of home, that it has received before."""

    received: int


Word = TypeVar("Word", Hello, Welcome, Refused, Report, Command, Ack, Opening, Accepted)

_KINDS: Dict[str, Any] = {
    kind.__name__.lower(): kind for kind in (Hello, Welcome, Refused, Report, Command, Ack, Opening, Accepted)
}


def encode(word: Any) -> bytes:
    """Return the word as bytes for the wire."""
    text = json.dumps([type(word).__name__.lower(), word._asdict()], ensure_ascii=False)
    body = text.encode("utf-8", "surrogatepass")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Any:
    """Return the word in ``body``; fields that this release does not know are ignored.

    Raises WordsError for anything else than a known word with the fields it must have.
    """
    try:
        kind_name, fields = json.loads(body.decode("utf-8", "surrogatepass"))
        kind = _KINDS[kind_name]
        word = kind(**{name: value for name, value in fields.items() if name in kind._fields})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WordsError("not a word: %s" % type(error).__name__) from error
    _check_types(word)
    return word


_INTS = frozenset(["protocol", "launch", "start", "number", "received", "signum", "rss", "spooled"])
_LISTS = frozenset(["log", "warnings", "pipes"])


def _check_types(word: Any) -> None:
    for name, value in zip(word._fields, word):
        if name in _INTS:
            good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        elif name in _LISTS:
            good = isinstance(value, list) and all(isinstance(item, str) for item in value)
        elif name in ("cpu", "grace", "idle"):
            good = isinstance(value, (int, float))
        elif name in ("pid", "exit_code"):
            good = value is None or isinstance(value, int)
        elif name == "order":
            good = value is None or isinstance(value, dict)
        elif name == "final":
            good = isinstance(value, bool)
        else:
            good = isinstance(value, str)
        if not good:
            raise WordsError("field %r of %s has the wrong type" % (name, type(word).__name__))


def expect(word: Any, kind: Type[Word]) -> Word:
    """Return ``word`` if it is of that kind; raises WordsError if it is another."""
    if not isinstance(word, kind):
        raise WordsError("expected %s, got %s" % (kind.__name__, type(word).__name__))
    return word


class WordReader:
    """Cuts a byte stream into words; the limit guards what is buffered for one of them."""

    def __init__(self, limit: int = MAX_WORD) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> List[Any]:
        """Return the words that are now complete. Raises WordsError."""
        self._buffer += data
        words: List[Any] = []
        while True:
            body = self._next()
            if body is None:
                return words
            words.append(decode(body))

    def first(self, data: bytes) -> Tuple[Any, bytes]:
        """Return the first word once it is complete (else None) and the bytes behind it."""
        self._buffer += data
        body = self._next()
        if body is None:
            return None, b""
        rest, self._buffer = bytes(self._buffer), bytearray()
        return decode(body), rest

    def _next(self) -> Optional[bytes]:
        if len(self._buffer) < 4:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > self.limit:
            raise WordsError("a word of %d bytes, the limit is %d" % (length, self.limit))
        if len(self._buffer) < 4 + length:
            return None
        body = bytes(self._buffer[4 : 4 + length])
        del self._buffer[: 4 + length]
        return body
