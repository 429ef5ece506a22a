"""Kernel messages between the kernel's wire and a websocket, in both protocols; contents pass undecoded.

Sources: the Jupyter messaging protocol 5.x ("The wire protocol"), and jupyter_server's documentation of
"websocket protocols": the legacy one (JSON, or JSON with buffers behind a table of offsets) and
``v1.kernel.websocket.jupyter.org``.
"""

from __future__ import annotations

import hmac
import itertools
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from elsewhere.agent.message import DELIMITER, sign
from elsewhere.agent.zmtp import ZmtpError, encode_message, frames

V1 = "v1.kernel.websocket.jupyter.org"
CLIENT_CHANNELS = frozenset(["shell", "control", "stdin"])
_MOST_PARTS = 10_000
LONG = 64 * 1024
"""Bytes above which a part is passed on where it is, without a copy."""

Part = bytes | memoryview


class NotAMessage(ValueError):
    """What came is no message of the protocol; says what is wrong with it."""


@dataclass(frozen=True)
class Message:
    """One message: its parts as they are, and its header decoded."""

    channel: str
    header: dict[str, Any]
    parts: tuple[Part, ...]
    """Header, parent header, metadata, content, and then buffers."""

    @property
    def kind(self) -> str:
        """The header's ``msg_type``."""
        return str(self.header.get("msg_type", ""))


# ---- from and to the kernel


def from_kernel(channel: str, wire: bytes, start: int, end: int, key: bytes) -> Message:
    """Return the message at ``wire[start:end]``. Raises NotAMessage, for a wrong signature too."""
    try:
        parts = [frame if len(frame) > LONG else bytes(frame) for frame in frames(wire, start, end)]
        at = parts.index(DELIMITER)
        signature, body = bytes(parts[at + 1]), tuple(parts[at + 2 :])
    except (ZmtpError, ValueError, IndexError) as error:
        raise NotAMessage("no message of a kernel") from error
    if len(body) < 4:
        raise NotAMessage("a message with too few parts")
    if key and not hmac.compare_digest(sign(key, body[:4]), signature):
        raise NotAMessage("a message whose signature is wrong")
    return Message(channel, _object(bytes(body[0]), "header"), body)


def to_kernel(message: Message, key: bytes) -> bytes:
    """Return the message as the wire of a DEALER has it, signed."""
    return encode_message([DELIMITER, sign(key, message.parts[:4]), *message.parts])


# ---- to a websocket


def to_v1(message: Message) -> bytes:
    """Return the message as a binary frame of the v1 protocol."""
    parts = (message.channel.encode(), *message.parts)
    offset = 8 * (len(parts) + 2)
    offsets = [len(parts) + 1, offset]
    for part in parts:
        offset += len(part)
        offsets.append(offset)
    return b"".join([struct.pack(f"<{len(offsets)}Q", *offsets), *parts])


def to_legacy(message: Message) -> str | bytes:
    """Return the message as a frame of the legacy protocol: text, or binary if it has buffers.

    Raises NotAMessage for parts that are no UTF-8.
    """
    header, parent, metadata, content, *buffers = message.parts
    known = {
        "msg_id": message.header.get("msg_id", ""),
        "msg_type": message.kind,
        "channel": message.channel,
    }
    text = b"".join(
        [
            b'{"header":',
            header,
            b',"parent_header":',
            parent,
            b',"metadata":',
            metadata,
            b',"content":',
            content,
            b',"buffers":[],' if not buffers else b",",
            json.dumps(known).encode()[1:],
        ]
    )
    if buffers:
        return _with_buffers(text, buffers)
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise NotAMessage("a message that is no UTF-8") from error


def _with_buffers(text: bytes, buffers: Sequence[Part]) -> bytes:
    parts = [text, *buffers]
    offset = 4 * (len(parts) + 1)
    numbers = [len(parts)]
    for part in parts:
        numbers.append(offset)
        offset += len(part)
    return b"".join([struct.pack(f"!{len(numbers)}I", *numbers), *parts])


# ---- from a websocket


def from_websocket(data: str | bytes, protocol: str | None) -> Message:
    """Return the message that a client sent. Raises NotAMessage."""
    if protocol == V1:
        if isinstance(data, str):
            raise NotAMessage("a text frame, where this protocol has binary ones")
        channel, parts = _from_v1(data)
    else:
        channel, parts = _from_legacy(data)
    if channel not in CLIENT_CHANNELS:
        raise NotAMessage(f"a message for the channel {channel[:64]!r}; there are shell, control and stdin")
    header = _object(parts[0], "header")
    if not isinstance(header.get("msg_type"), str) or not isinstance(header.get("msg_id"), str):
        raise NotAMessage("a header without msg_id and msg_type")
    return Message(channel, header, parts)


def _from_v1(data: bytes) -> tuple[str, tuple[bytes, ...]]:
    if len(data) < 8:
        raise NotAMessage("a frame without offsets")
    (count,) = struct.unpack_from("<Q", data)
    if not 6 <= count <= _MOST_PARTS or len(data) < 8 * (count + 1):
        raise NotAMessage(f"a frame with {count} offsets")
    offsets = struct.unpack_from(f"<{count}Q", data, 8)
    if list(offsets) != sorted(offsets) or offsets[0] < 8 * (count + 1) or offsets[-1] > len(data):
        raise NotAMessage("a frame whose offsets lead nowhere")
    pieces = [data[start:end] for start, end in itertools.pairwise(offsets)]
    for name, piece in zip(("parent_header", "metadata", "content"), pieces[2:5], strict=True):
        _object(piece, name)
    return pieces[0].decode(errors="replace"), tuple(pieces[1:])


def _from_legacy(data: str | bytes) -> tuple[str, tuple[bytes, ...]]:
    buffers: list[bytes] = []
    if isinstance(data, bytes):
        data, buffers = _split_buffers(data)
    message = _object(data, "message")
    parts = []
    for name in ("header", "parent_header", "metadata", "content"):
        value = message.get(name, {})
        if not isinstance(value, dict):
            raise NotAMessage(f"a message whose {name} is no object")
        parts.append(_packed(value))
    channel = message.get("channel", "shell")
    return str(channel), (*parts, *buffers)


def _split_buffers(data: bytes) -> tuple[bytes, list[bytes]]:
    if len(data) < 8:
        raise NotAMessage("a frame without offsets")
    (count,) = struct.unpack_from("!I", data)
    if not 1 <= count <= _MOST_PARTS or len(data) < 4 * (count + 1):
        raise NotAMessage(f"a frame with {count} offsets")
    offsets = [*struct.unpack_from(f"!{count}I", data, 4), len(data)]
    if offsets != sorted(offsets) or offsets[0] < 4 * (count + 1):
        raise NotAMessage("a frame whose offsets lead nowhere")
    pieces = [data[start:end] for start, end in itertools.pairwise(offsets)]
    return pieces[0], pieces[1:]


def _packed(value: dict[str, Any]) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as error:  # a lone surrogate, NaN
        raise NotAMessage(f"a message that cannot be passed on: {type(error).__name__}") from error


def _object(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotAMessage(f"a {what} that is no JSON") from error
    if not isinstance(value, dict):
        raise NotAMessage(f"a {what} that is no object")
    return value
