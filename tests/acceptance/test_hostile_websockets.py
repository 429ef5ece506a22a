"""Whatever is said over a websocket to a kernel: the kernel, other front ends and the gateway go on."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import websocket
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from gateway_kit import Client, Gateway, gateway_of, listed
from hostile_kit import values
from site_kit import PATIENCE, STUB, new_site

V1 = "v1.kernel.websocket.jupyter.org"
MEGABYTE = 1024 * 1024
BEYOND = 2**63 - 1


class Office:
    """A gateway with a kernel, to which a front end is connected that means well."""

    def __init__(self, gateway: Gateway, kernel: str, client: Client) -> None:
        self.gateway = gateway
        self.kernel = kernel
        self.client = client
        self._read = 0

    @contextmanager
    def websocket(self, protocol: str | None) -> Iterator[websocket.WebSocket]:
        """Another websocket to the kernel, in this protocol (None: the legacy one)."""
        url = f"ws://127.0.0.1:{self.gateway.port}/api/kernels/{self.kernel}/channels?session_id=hostile"
        connection = websocket.create_connection(
            url,
            header=[f"Authorization: token {self.gateway.token}"],
            subprotocols=[protocol] if protocol else [],
            timeout=PATIENCE,
        )
        try:
            yield connection
        finally:
            connection.close()

    def bears(self, frames: list[str | bytes], protocol: str | None) -> None:
        """Say all this to the kernel, and expect that nobody else suffers from it."""
        with self.websocket(protocol) as connection:
            for frame in frames:
                try:
                    opcode = websocket.ABNF.OPCODE_BINARY
                    if isinstance(frame, str):
                        opcode = websocket.ABNF.OPCODE_TEXT
                    connection.send(frame, opcode)
                except OSError:
                    break  # it was closed for what was said before
        assert self.client.run("print 2") == "0\n1\n"
        with self.gateway.log.open("rb") as log:
            log.seek(self._read)
            said = log.read().decode(errors="replace")
            self._read = log.tell()
        assert "Traceback" not in said, said
        assert listed(self.gateway) == [self.kernel]


@pytest.fixture(scope="module")
def office() -> Iterator[Office]:
    with new_site() as site:
        site.spec("stub", STUB)
        with gateway_of(site) as gateway:
            kernel = gateway.kernel("stub")
            with gateway.client(kernel) as client:
                yield Office(gateway, kernel, client)


def v1(*parts: bytes) -> bytes:
    """A whole frame of the v1 protocol."""
    offset = 8 * (len(parts) + 2)
    offsets = [offset]
    for part in parts:
        offset += len(part)
        offsets.append(offset)
    return b"".join([struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets), *parts])


HEADER = b'{"msg_id": "1", "msg_type": "execute_request", "session": "s", "version": "5.3"}'
WHOLE = v1(b"shell", HEADER, b"{}", b"{}", b'{"code": "print 1"}')
V1_FRAMES: tuple[str | bytes, ...] = (
    b"",
    b"\0",
    b"\xff" * 8,
    b"\xff" * 4096,
    struct.pack("<Q", BEYOND),
    struct.pack("<7Q", 6, 56, 56, 56, 56, 56, BEYOND),
    struct.pack("<7Q", 6, 56, 40, 56, 20, 56, 56),
    *(WHOLE[:end] for end in range(0, len(WHOLE), 17)),
    v1(b"shell"),
    v1(b"nowhere", HEADER, b"{}", b"{}", b"{}"),
    v1(b"iopub", HEADER, b"{}", b"{}", b"{}"),
    v1(b"\xff\xfe", HEADER, b"{}", b"{}", b"{}"),
    v1(b"shell", b"[]", b"1", b"null", b'"x"'),
    v1(b"shell", b"\xff", b"{}", b"{}", b"{}"),
    v1(b"shell", HEADER, b"{}", b"{}", b"[" * 100_000),
    v1(b"shell", HEADER, b"{}", b"{}", b"{}", *[b""] * 9_000),
    v1(b"control", HEADER.replace(b"execute", b"no_such"), b"{}", b"{}", b"{}"),
    v1(b"stdin", HEADER.replace(b"execute_request", b"input_reply"), b"{}", b"{}", b'{"value": "x"}'),
    "text where there should be none",
)
LEGACY_FRAMES: tuple[str | bytes, ...] = (
    "",
    "{",
    "null",
    "[]",
    '"x"',
    "1e999",
    "NaN",
    "[" * 100_000,
    '{"channel": "shell"}',
    '{"channel": 7, "header": {"msg_id": "1", "msg_type": "x"}}',
    '{"channel": "shell", "header": []}',
    '{"channel": "shell", "header": {"msg_id": 1, "msg_type": 2}}',
    '{"channel": "shell", "header": {"msg_id": "1", "msg_type": "x"}, "content": "text"}',
    '{"channel": "shell", "header": {"msg_id": "1", "msg_type": "x"}, "metadata": {"a": NaN}}',
    '{"channel": "shell", "header": {"msg_id": "\\ud800", "msg_type": "execute_request"}, "content": {}}',
    '{"channel": "hb", "header": {"msg_id": "1", "msg_type": "x"}}',
    b"\0\0\0\1",
    b"\xff\xff\xff\xff" * 4,
    struct.pack("!3I", 2, 12, 2**31),
    struct.pack("!2I", 1, 8) + b"\xff{}",
)
LARGE = json.dumps(
    {"channel": "shell", "header": {"msg_id": "1", "msg_type": "x"}, "content": {"a": "x" * 20 * MEGABYTE}}
)


@pytest.mark.parametrize(
    ("frames", "protocol"), [(V1_FRAMES, V1), (LEGACY_FRAMES, None)], ids=["v1", "legacy"]
)
def test_frames_that_are_no_messages(office: Office, frames: tuple[Any, ...], protocol: str | None) -> None:
    for frame in frames:
        office.bears([frame], protocol)


@pytest.mark.parametrize("frame", [LARGE, LARGE.encode(), b"\0" * 20 * MEGABYTE])
@pytest.mark.parametrize("protocol", [V1, None])
def test_a_frame_of_twenty_megabytes(office: Office, frame: str | bytes, protocol: str | None) -> None:
    office.bears([frame, "{}"], protocol)


messages = st.fixed_dictionaries(
    {},
    optional={
        "channel": st.one_of(st.sampled_from(["shell", "control", "stdin", "iopub", "hb", ""]), values),
        "header": st.one_of(
            st.fixed_dictionaries(
                {"msg_id": st.one_of(st.just("1"), values)},
                optional={
                    "msg_type": st.one_of(st.sampled_from(["comm_info_request", "no_such_request"]), values),
                    "session": values,
                    "date": values,
                },
            ),
            values,
        ),
        "parent_header": values,
        "metadata": values,
        "content": st.one_of(st.just({}), values),
        "buffers": values,
    },
).map(json.dumps)


@given(frames=st.lists(st.one_of(messages, st.binary(max_size=100), st.text(max_size=20)), max_size=4))
@example(frames=["{}"])
@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@pytest.mark.parametrize("protocol", [V1, None])
def test_messages_of_nobody(office: Office, protocol: str | None, frames: list[str | bytes]) -> None:
    office.bears([frame for frame in frames if frame.isascii() or isinstance(frame, bytes)], protocol)
