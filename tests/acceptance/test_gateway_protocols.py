"""Both websocket protocols, as a client that knows nothing else speaks them, and as it should not."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from functools import partial

import pytest
import websocket

from gateway_kit import Gateway, gateway_of
from site_kit import new_site, until
from websocket_kit import PROTOCOL_NAMES, PROTOCOLS, V1, FrontEnd, Message, front_end, kind_of

ECHO = """
import comm
def opened(one, message):
    def answer(sent):
        buffers = [bytes(buffer)[::-1] for buffer in sent["buffers"]]
        one.send({"n": len(buffers)}, buffers=buffers)
    one.on_msg(answer)
comm.get_comm_manager().register_target("echo", opened)
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """One gateway with one kernel for all tests of this module, which leave it as it was."""
    with new_site() as site:
        site.spec()
        with gateway_of(site) as gateway:
            yield gateway


@pytest.fixture(scope="module")
def kernel(gateway: Gateway) -> str:
    kernel = gateway.kernel()
    gateway.until_state(kernel, "idle")
    return kernel


@pytest.fixture(params=PROTOCOLS, ids=PROTOCOL_NAMES)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_buffers_go_both_ways(gateway: Gateway, kernel: str, protocol: str) -> None:
    with front_end(gateway, kernel, protocol) as client:
        client.run(ECHO)
        identity = {"comm_id": f"comm-{protocol}", "target_name": "echo", "data": {}}
        client.send("comm_open", identity)
        client.send("comm_msg", identity, buffers=(b"abc\x00", b"", bytes(range(256))))
        answer = client.until(lambda message: kind_of(message) == "comm_msg", "the comm's answer")
        assert [bytes(one) for one in answer["buffers"]] == [b"\x00cba", b"", bytes(range(255, -1, -1))]
        assert answer["content"]["data"] == {"n": 3}
        assert answer["channel"] == "iopub"


def test_a_cell_may_ask_for_input(gateway: Gateway, kernel: str, protocol: str) -> None:
    with front_end(gateway, kernel, protocol) as client:
        asked = client.execute("print(input('who? ')[::-1])", allow_stdin=True)
        question = client.until(lambda message: kind_of(message) == "input_request", "the question")
        assert question["channel"] == "stdin"
        assert question["content"]["prompt"] == "who? "
        client.send(
            "input_reply", {"value": "you", "status": "ok"}, channel="stdin", parent=question["header"]
        )
        client.reply(asked)
        assert client.output(asked) == "uoy\n"


def test_the_control_channel_answers_while_a_cell_is_busy(
    gateway: Gateway, kernel: str, protocol: str
) -> None:
    with front_end(gateway, kernel, protocol) as client:
        busy = client.execute("import time\nwhile True: time.sleep(0.01)")
        client.until(lambda message: kind_of(message) == "execute_input", "the cell runs")
        asked = client.send("kernel_info_request", {}, channel="control")
        info = client.until(
            lambda message: (
                kind_of(message) == "kernel_info_reply" and message["parent_header"]["msg_id"] == asked
            ),
            "the answer on control",
        )
        assert info["channel"] == "control"
        assert gateway.ask("POST", f"/api/kernels/{kernel}/interrupt")[0] == 204
        assert client.reply(busy)["content"]["ename"] == "KeyboardInterrupt"


def test_large_messages_go_both_ways(gateway: Gateway, kernel: str, protocol: str) -> None:
    size = 4 * 1024 * 1024
    with front_end(gateway, kernel, protocol) as client:
        assert client.run(f"print(len({'x' * size!r}))") == f"{size}\n"
        assert len(client.run(f"print('y' * {size})")) == size + 1


def test_each_client_sees_all_output_and_only_its_own_replies(gateway: Gateway, kernel: str) -> None:
    with front_end(gateway, kernel) as one, front_end(gateway, kernel, V1) as other:
        asked = {client: client.execute(f"print({number})") for number, client in enumerate((one, other))}
        for client, own in asked.items():
            client.reply(own)
        for client, stranger in ((one, asked[other]), (other, asked[one])):
            if not client.output(stranger):
                client.until(partial(is_output, stranger), "the other's output")
            replies = [message for message in client.heard if kind_of(message) == "execute_reply"]
            assert [message["parent_header"]["msg_id"] for message in replies] == [asked[client]]


def is_output(of: str, message: Message) -> bool:
    return kind_of(message) == "stream" and bool(message["parent_header"].get("msg_id") == of)


def test_every_connection_that_comes_and_goes_is_counted(gateway: Gateway, kernel: str) -> None:
    with front_end(gateway, kernel), front_end(gateway, kernel, V1):
        until(lambda: gateway.detail(kernel)["connections"] == 2, "both are counted")
    until(lambda: gateway.detail(kernel)["connections"] == 0, "both have gone")


HEADER = {"msg_id": "1", "msg_type": "kernel_info_request", "session": "s", "username": "u", "version": "5.3"}
FINE = {"header": HEADER, "parent_header": {}, "metadata": {}, "content": {}, "channel": "shell"}
DEEP = "[" * 100_000

LEGACY_GARBAGE: dict[str, str | bytes] = {
    "no JSON": "hello",
    "nothing": "",
    "a list": "[]",
    "a number": "7",
    "null": "null",
    "deep JSON": DEEP,
    "deep JSON in the content": json.dumps(FINE).replace(
        '"content": {}', f'"content": {DEEP}{"]" * len(DEEP)}'
    ),
    "no header": json.dumps({"channel": "shell", "content": {}}),
    "a header that is text": json.dumps({**FINE, "header": "x"}),
    "a header that is null": json.dumps({**FINE, "header": None}),
    "a header without type": json.dumps({**FINE, "header": {"msg_id": "1"}}),
    "a type that is a list": json.dumps({**FINE, "header": {**HEADER, "msg_type": ["a"]}}),
    "a session that is an object": json.dumps({**FINE, "header": {**HEADER, "session": {"a": 1}}}),
    "content that is a list": json.dumps({**FINE, "content": [1]}),
    "a parent that is text": json.dumps({**FINE, "parent_header": "x"}),
    "buffers that are text": json.dumps({**FINE, "buffers": "x"}),
    "a channel that is unknown": json.dumps({**FINE, "channel": "hb"}),
    "the channel iopub": json.dumps({**FINE, "channel": "iopub"}),
    "a channel that is an object": json.dumps({**FINE, "channel": {}}),
    "a surrogate alone": json.dumps({**FINE, "content": {"code": "\ud800"}}),
    "not a number": json.dumps({**FINE, "content": {"code": float("nan")}}),
    "a huge number": '{"header": {"msg_id": "1", "msg_type": "x"}, "content": {"a": 1' + "0" * 5000 + "}}",
    "an unknown type": json.dumps({**FINE, "header": {**HEADER, "msg_type": "no_such_request"}}),
    "an execute request without code": json.dumps(
        {**FINE, "header": {**HEADER, "msg_type": "execute_request"}}
    ),
    "bytes": b"\x00",
    "bytes with too large a count": struct.pack("!I", 2**32 - 1) + b"x" * 100,
    "bytes whose offsets lead nowhere": struct.pack("!III", 2, 12, 2**31) + b"{}",
    "bytes whose offsets go back": struct.pack("!III", 2, 2**16, 12) + b"{}" * 2**16,
    "bytes that are no UTF-8": struct.pack("!II", 1, 8) + b"\xff\xfe{}",
    "a comm message to nobody": json.dumps(
        {**FINE, "header": {**HEADER, "msg_type": "comm_msg"}, "content": {"comm_id": "none", "data": {}}}
    ),
}


def v1_frame(*parts: bytes, channel: bytes = b"shell") -> bytes:
    pieces = (channel, *parts)
    offsets = [8 * (len(pieces) + 2)]
    for piece in pieces:
        offsets.append(offsets[-1] + len(piece))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(pieces)


V1_HEADER = json.dumps(HEADER).encode()
V1_GARBAGE: dict[str, str | bytes] = {
    "text": "hello",
    "nothing": b"",
    "a byte": b"\x00",
    "zeros": bytes(64),
    "too large a count": struct.pack("<Q", 2**63) + b"x" * 100,
    "offsets that lead nowhere": struct.pack("<7Q", 6, 56, 2**60, 2**61, 2**61, 2**61, 2**62),
    "offsets that go back": struct.pack("<7Q", 6, 56, 40, 30, 20, 10, 5) + b"x" * 100,
    "no header": v1_frame(b"", b"{}", b"{}", b"{}"),
    "a header that is no JSON": v1_frame(b"x", b"{}", b"{}", b"{}"),
    "a header that is a list": v1_frame(b"[]", b"{}", b"{}", b"{}"),
    "a header that is deep": v1_frame(DEEP.encode(), b"{}", b"{}", b"{}"),
    "a type that is a number": v1_frame(b'{"msg_id": "1", "msg_type": 1}', b"{}", b"{}", b"{}"),
    "content that is no JSON": v1_frame(V1_HEADER, b"{}", b"{}", b"{"),
    "content that is a list": v1_frame(V1_HEADER, b"{}", b"{}", b"[]"),
    "content that is no UTF-8": v1_frame(V1_HEADER, b"{}", b"{}", b'{"code": "\xff"}'),
    "content that is deep": v1_frame(V1_HEADER, b"{}", b"{}", b'{"a": ' + DEEP.encode()),
    "too few parts": v1_frame(V1_HEADER, b"{}"),
    "a channel that is unknown": v1_frame(V1_HEADER, b"{}", b"{}", b"{}", channel=b"hb"),
    "the channel iopub": v1_frame(V1_HEADER, b"{}", b"{}", b"{}", channel=b"iopub"),
    "a channel that is no UTF-8": v1_frame(V1_HEADER, b"{}", b"{}", b"{}", channel=b"\xff"),
    "a parent that is text": v1_frame(V1_HEADER, b'"x"', b"{}", b"{}"),
}

GARBAGE = [
    *(pytest.param("", data, id=f"legacy: {name}") for name, data in LEGACY_GARBAGE.items()),
    *(pytest.param(V1, data, id=f"v1: {name}") for name, data in V1_GARBAGE.items()),
]


@pytest.mark.parametrize(("protocol", "data"), GARBAGE)
def test_garbage_harms_nobody(gateway: Gateway, kernel: str, protocol: str, data: str | bytes) -> None:
    """The one who sent it goes on too, for a gateway that hangs up makes a front end come back with it."""
    before = gateway.log.stat().st_size
    with front_end(gateway, kernel) as other, front_end(gateway, kernel, protocol) as client:
        send(client, data)
        assert client.run("print('still')") == "still\n"
        assert other.run("print('here')") == "here\n"
    said = gateway.log.read_bytes()[before:].decode(errors="replace")
    assert "Traceback" not in said, said
    assert " 500 " not in said, said
    assert max(map(len, said.splitlines())) < 1000, "a client may not fill the log"


def send(client: FrontEnd, data: str | bytes) -> None:
    if isinstance(data, bytes):
        client.connection.send_binary(data)
    else:
        client.connection.send(data)


def test_a_client_that_is_cut_off_in_a_message_harms_nobody(gateway: Gateway, kernel: str) -> None:
    with front_end(gateway, kernel) as client:
        frame = websocket.ABNF.create_frame("x" * 1000, websocket.ABNF.OPCODE_TEXT).format()
        assert client.connection.sock is not None
        client.connection.sock.sendall(frame[:100])
        client.connection.shutdown()
    with front_end(gateway, kernel) as client:
        assert client.run("print(1)") == "1\n"


def test_a_websocket_to_no_kernel_is_refused(gateway: Gateway) -> None:
    nobody = front_end(gateway, "00000000-0000-0000-0000-000000000000")
    with pytest.raises(websocket.WebSocketBadStatusException) as refused, nobody:
        pytest.fail("accepted")
    assert refused.value.status_code == 404
