"""What the agent understands of Jupyter's messages: kinds, kernel status, and notes of its own.

Source: the Jupyter messaging protocol 5.x, "The wire protocol": identities, ``<IDS|MSG>``,
signature, header, parent header, metadata, content, buffers.
"""

from __future__ import annotations

import bisect
import hashlib
import hmac
import json
import os
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from .zmtp import encode_message, frames

DELIMITER = b"<IDS|MSG>"
_STATE = b'"execution_state"'

HOUSEKEEPING = frozenset(
    ["kernel_info_request", "comm_info_request", "debug_request", "interrupt_request", "shutdown_request"]
)
"""Requests that front ends send by themselves: a kernel that answers them is not in use."""


class Status(NamedTuple):
    """What a status message tells: the kernel's state, and the type of the request that it answers."""

    state: str
    asked: str


class Parts(NamedTuple):
    """The parts of one message, still as bytes."""

    topic: List[bytes]
    header: bytes
    parent: bytes
    content: bytes

    @property
    def kind(self) -> str:
        """The header's ``msg_type``, or an empty string."""
        return _kind(self.header)


def parts(wire: bytes, start: int, end: int) -> Optional[Parts]:
    """Return the parts of the message at ``wire[start:end]``, or None if it is no Jupyter message."""
    found = [bytes(frame) for frame in frames(wire, start, end)]
    try:
        at = found.index(DELIMITER)
        return Parts(found[:at], found[at + 2], found[at + 3], found[at + 5])
    except (ValueError, IndexError):
        return None


def statuses(wire: bytes, ends: Sequence[int]) -> List[Status]:
    """Return what the status messages among these tell, in order.

    One search of all the bytes, so that other messages cost next to nothing.
    """
    found = []
    at = wire.find(_STATE)
    while at >= 0:
        index = bisect.bisect_right(ends, at)
        told = status(wire, ends[index - 1] if index else 0, ends[index])
        if told is not None:
            found.append(told)
        at = wire.find(_STATE, ends[index])
    return found


def status(wire: bytes, start: int, end: int) -> Optional[Status]:
    """Return what a status message tells, or None for any other message."""
    message = parts(wire, start, end)
    if message is None or message.kind != "status":
        return None
    try:
        state = str(json.loads(message.content.decode())["execution_state"])
    except (ValueError, KeyError, TypeError):
        return None
    return Status(state, _kind(message.parent))


def index(wire: bytes, ends: Sequence[int], kind: str) -> Optional[int]:
    """Return which of these messages is the first of that kind, or None."""
    word = b'"%s"' % kind.encode()
    at = wire.find(word)
    while at >= 0:
        found = bisect.bisect_right(ends, at)
        head = parts(wire, ends[found - 1] if found else 0, ends[found])
        if head is not None and head.kind == kind:
            return found
        at = wire.find(word, ends[found])
    return None


def stream_size(wire: bytes, start: int, end: int) -> int:
    """Return how many bytes of text a stream message carries; 0 for any other message."""
    if wire.find(b'"stream"', start, end) < 0:
        return 0
    message = parts(wire, start, end)
    if message is None or message.kind != "stream":
        return 0
    return max(1, len(message.content))


def note(text: str, like: Parts, key: bytes) -> bytes:
    """Return a stderr stream message that says ``text``, on behalf of the kernel, signed.

    It takes session, user and parent from the message ``like``, so that it shows in the same cell.
    """
    header: Dict[str, Any] = json.loads(like.header.decode())
    header.update(msg_id=os.urandom(16).hex(), msg_type="stream", date=_now())
    body = [
        json.dumps(header).encode(),
        like.parent,
        b"{}",
        json.dumps({"name": "stderr", "text": text}).encode(),
    ]
    return encode_message([*like.topic, DELIMITER, sign(key, body), *body])


def sign(key: bytes, body: Sequence[bytes | memoryview]) -> bytes:
    """Return the hmac-sha256 signature of a message's four parts; empty for an empty key."""
    if not key:
        return b""
    digest = hmac.new(key, digestmod=hashlib.sha256)
    for part in body:
        digest.update(part)
    return digest.hexdigest().encode()


def _kind(header: bytes) -> str:
    try:
        return str(json.loads(header.decode()).get("msg_type", ""))
    except (ValueError, AttributeError):
        return ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
