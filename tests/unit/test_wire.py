"""Messages between the kernel's wire and both websocket protocols, against jupyter_server's own code."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session
from jupyter_server.services.kernels.connection import base as stock

from elsewhere.agent.zmtp import encode_message, frames
from elsewhere.gateway.wire import (
    V1,
    Message,
    NotAMessage,
    from_kernel,
    from_websocket,
    to_kernel,
    to_legacy,
    to_v1,
)

STOCK: Any = stock  # untyped
KEY = b"key"
BUFFERS = [b"\0\xff", b"", b"x" * 1000]
session = Session(key=KEY, signature_scheme="hmac-sha256")


def spoken(buffers: list[bytes], **content: Any) -> tuple[dict[str, Any], bytes]:
    """A message of a kernel, as its dict and as its wire."""
    message = session.msg("display_data", content, parent=session.msg("execute_request", {}))
    wire = encode_message([b"topic", *session.serialize(message), *buffers])
    return message, wire


def received(wire: bytes, key: bytes = KEY) -> Message:
    return from_kernel("iopub", wire, 0, len(wire), key)


@pytest.mark.parametrize("buffers", [[], BUFFERS])
def test_v1_is_what_jupyter_server_reads(buffers: list[bytes]) -> None:
    sent, wire = spoken(buffers, text="ä 😀")
    channel, parts = STOCK.deserialize_msg_from_ws_v1(to_v1(received(wire)))
    assert channel == "iopub"
    assert json.loads(parts[3]) == sent["content"]
    assert parts[4:] == buffers
    assert json.loads(parts[0])["msg_id"] == sent["header"]["msg_id"]


@pytest.mark.parametrize("buffers", [[], BUFFERS])
def test_legacy_is_what_a_front_end_reads(buffers: list[bytes]) -> None:
    sent, wire = spoken(buffers, text="ä 😀")
    data = to_legacy(received(wire))
    if isinstance(data, bytes):
        message = STOCK.deserialize_binary_message(data)
        assert message.pop("buffers") == buffers
    else:
        message = json.loads(data)
        assert message.pop("buffers") == []
    assert isinstance(data, bytes) == bool(buffers)
    assert (message["channel"], message["msg_type"]) == ("iopub", "display_data")
    assert message["msg_id"] == message["header"]["msg_id"] == sent["header"]["msg_id"]
    assert message["content"] == sent["content"]
    assert message["parent_header"]["msg_type"] == "execute_request"


@pytest.mark.parametrize("buffers", [[], BUFFERS])
@pytest.mark.parametrize("protocol", [V1, None, ""])
def test_what_a_front_end_sends_reaches_the_kernel_signed(protocol: str | None, buffers: list[bytes]) -> None:
    asked = session.msg("execute_request", {"code": "ä 😀 $(x)"})
    if protocol == V1:
        parts = [session.pack(asked[name]) for name in ("header", "parent_header", "metadata", "content")]
        data: str | bytes = STOCK.serialize_msg_to_ws_v1([*parts, *buffers], "shell")
    else:
        legacy = {**asked, "channel": "shell", "buffers": buffers}
        data = STOCK.serialize_binary_message(legacy) if buffers else json.dumps(legacy, default=str)
    message = from_websocket(data, protocol)
    assert (message.channel, message.kind) == ("shell", "execute_request")
    wire = to_kernel(message, KEY)
    idents, rest = session.feed_identities([bytes(one) for one in frames(wire, 0, len(wire))])
    got = session.deserialize(rest)
    assert idents == []
    assert got["content"] == {"code": "ä 😀 $(x)"}
    assert [bytes(one) for one in got["buffers"]] == buffers


def test_a_wrong_signature_is_no_message_and_without_a_key_none_is_asked() -> None:
    _, wire = spoken([], a=1)
    with pytest.raises(NotAMessage, match="signature"):
        received(wire, b"another key")
    assert received(wire, b"").kind == "display_data"


@pytest.mark.parametrize(
    "parts", [[b"a"], [b"<IDS|MSG>"], [b"<IDS|MSG>", b"", b"{}"], [b"<IDS|MSG>", b"", b"[]", b"", b"", b""]]
)
def test_what_is_no_message_of_a_kernel_is_told(parts: list[bytes]) -> None:
    with pytest.raises(NotAMessage):
        received(encode_message(parts), b"")


def test_legacy_cannot_carry_what_is_no_utf8() -> None:
    header = json.dumps({"msg_id": "a", "msg_type": "stream"}).encode()
    wire = encode_message([b"<IDS|MSG>", b"", header, b"{}", b"{}", b"\xff"])
    with pytest.raises(NotAMessage, match="UTF-8"):
        to_legacy(received(wire, b""))


HEADER = {"msg_id": "a", "msg_type": "execute_request"}
GOOD = {"channel": "shell", "header": HEADER, "parent_header": {}, "metadata": {}, "content": {}}


@pytest.mark.parametrize(
    "data",
    [
        "",
        "[]",
        "null",
        "{",
        "[" * 100_000,
        json.dumps({**GOOD, "header": None}),
        json.dumps({**GOOD, "header": {}}),
        json.dumps({**GOOD, "header": {"msg_id": 1, "msg_type": "x"}}),
        json.dumps({**GOOD, "channel": "iopub"}),
        json.dumps({**GOOD, "channel": 7}),
        json.dumps({**GOOD, "content": [1]}),
        json.dumps({**GOOD, "content": {"code": "\ud800"}}),
        json.dumps({**GOOD, "content": {"code": float("nan")}}),
        b"",
        b"\0\0\0\1",
        struct.pack("!III", 2, 8, 4),
        struct.pack("!II", 2**32 - 1, 0),
    ],
)
def test_nonsense_of_the_legacy_protocol_is_told(data: str | bytes) -> None:
    with pytest.raises(NotAMessage):
        from_websocket(data, None)


@pytest.mark.parametrize(
    "data",
    [
        "text",
        b"",
        b"\0" * 7,
        struct.pack("<Q", 2**63),
        struct.pack("<7Q", 6, 56, 56, 56, 56, 56, 99),
        struct.pack("<7Q", 6, 56, 56, 48, 56, 56, 56),
        to_v1(Message("shell", HEADER, (b"{}", b"{}", b"{}", b"{}"))),
        to_v1(Message("shell", HEADER, (json.dumps(HEADER).encode(), b"{}", b"{}", b"{"))),
        to_v1(Message("iopub", HEADER, (json.dumps(HEADER).encode(), b"{}", b"{}", b"{}"))),
    ],
)
def test_nonsense_of_the_v1_protocol_is_told(data: str | bytes) -> None:
    with pytest.raises(NotAMessage):
        from_websocket(data, V1)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)), st.sampled_from([V1, None]))
def test_whatever_comes_is_a_message_or_told_to_be_none(data: str | bytes, protocol: str | None) -> None:
    try:
        message = from_websocket(data, protocol)
    except NotAMessage:
        return
    assert message.kind
