"""A front end's end of a websocket, in both protocols, by jupyter_server's own functions for them.

They are another implementation than the gateway's, so the two witness each other.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import pytest
import websocket
from jupyter_client.jsonutil import json_default
from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_binary_message,
    serialize_msg_to_ws_v1,
)

from site_kit import PATIENCE

V1 = "v1.kernel.websocket.jupyter.org"
LEGACY = ""
PROTOCOLS = [LEGACY, V1]
PROTOCOL_NAMES = ["legacy", "v1"]

Message = dict[str, Any]


class FrontEnd:
    """One open websocket. What was received and not asked for is kept in ``heard``."""

    def __init__(self, connection: websocket.WebSocket, protocol: str) -> None:
        self.connection = connection
        self.protocol = protocol
        self.heard: list[Message] = []

    def send(
        self,
        kind: str,
        content: Mapping[str, object],
        *,
        channel: str = "shell",
        buffers: tuple[bytes, ...] = (),
        parent: Mapping[str, object] | None = None,
    ) -> str:
        """Send a message and return its id."""
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": kind,
            "session": "s",
            "username": "u",
            "version": "5.3",
            "date": datetime.now(timezone.utc).isoformat(),
        }
        parts: list[Mapping[str, object]] = [header, parent or {}, {}, content]
        if self.protocol == V1:
            packed = [json.dumps(part, default=json_default).encode() for part in parts]
            self.connection.send_binary(serialize_msg_to_ws_v1([*packed, *buffers], channel))
            return header["msg_id"]
        names = ("header", "parent_header", "metadata", "content")
        message: Message = {**dict(zip(names, parts, strict=True)), "channel": channel}
        if buffers:
            self.connection.send_binary(serialize_binary_message({**message, "buffers": list(buffers)}))
        else:
            self.connection.send(json.dumps(message, default=json_default))
        return header["msg_id"]

    def execute(self, code: str, **content: object) -> str:
        """Send a cell and return the request's id."""
        return self.send("execute_request", {"code": code, "silent": False, **content})

    def receive(self) -> Message:
        """Return the next message, with ``channel`` and ``buffers``."""
        data = self.connection.recv()
        if self.protocol == V1:
            assert isinstance(data, bytes)
            channel, parts = deserialize_msg_from_ws_v1(data)
            names = ("header", "parent_header", "metadata", "content")
            message: Message = {name: json.loads(part) for name, part in zip(names, parts[:4], strict=True)}
            return {**message, "channel": channel, "buffers": parts[4:]}
        if isinstance(data, bytes):
            whole: Message = deserialize_binary_message(data)
            return whole
        text: Message = json.loads(data)
        return text

    def until(self, wanted: Callable[[Message], object], what: str) -> Message:
        """Return the first message of the kind that is wanted."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            message = self.receive()
            self.heard.append(message)
            if wanted(message):
                return message
        pytest.fail(f"not within {PATIENCE:g} s: {what}; heard {[kind_of(one) for one in self.heard]}")

    def until_told(self, state: str) -> None:
        """Wait for a status message with this state."""
        self.until(
            lambda message: kind_of(message) == "status" and message["content"]["execution_state"] == state,
            f"the state {state}",
        )

    def reply(self, asked: str) -> Message:
        """Return the reply to a request; its output is in ``heard``, up to its idle."""
        found: dict[str, Message] = {}

        def complete(message: Message) -> bool:
            if message["parent_header"].get("msg_id") == asked:
                if kind_of(message).endswith("_reply"):
                    found["reply"] = message
                elif kind_of(message) == "status" and message["content"]["execution_state"] == "idle":
                    found["idle"] = message
            return len(found) == 2

        self.until(complete, "the reply and the idle")
        return found["reply"]

    def run(self, code: str, **content: object) -> str:
        """Execute, and return what was printed; an error's traceback is returned as its text."""
        asked = self.execute(code, **content)
        self.reply(asked)
        return self.output(asked)

    def output(self, asked: str) -> str:
        """What was heard of a request's output."""
        printed = ""
        for message in self.heard:
            if message["parent_header"].get("msg_id") != asked:
                continue
            if kind_of(message) == "stream":
                printed += message["content"]["text"]
            elif kind_of(message) == "error":
                printed += "\n".join(message["content"]["traceback"])
        return printed

    def states(self) -> list[str]:
        """The states that were told, in order."""
        return [one["content"]["execution_state"] for one in self.heard if kind_of(one) == "status"]


def kind_of(message: Message) -> str:
    """The type of a message."""
    return str(message["header"]["msg_type"])


@contextmanager
def front_end(
    server: Any, kernel_id: str, protocol: str = LEGACY, session: str | None = None
) -> Iterator[FrontEnd]:
    """A websocket to a kernel of a server that has ``port`` and ``token``."""
    name = uuid.uuid4().hex if session is None else session
    connection = websocket.create_connection(
        f"ws://127.0.0.1:{server.port}/api/kernels/{kernel_id}/channels?session_id={name}",
        header=[f"Authorization: token {server.token}"],
        timeout=PATIENCE,
        subprotocols=[protocol] if protocol else None,
    )
    try:
        assert (connection.subprotocol or "") == protocol
        yield FrontEnd(connection, protocol)
    finally:
        connection.close()
