"""A kernel's websocket as a front end has it, in the v1 protocol or the legacy one."""

from __future__ import annotations

import json
import ssl
import struct
import time
import uuid
from dataclasses import dataclass

import websocket

from elsewhere.cli.client import GatewayUnusable, Target
from elsewhere.gateway.wire import V1, Message, to_v1


@dataclass(frozen=True)
class Heard:
    """One message: which request it belongs to, what it is, and its content as JSON text."""

    channel: str
    kind: str
    asked: str
    content: bytes


class Channels:
    """One connection to a kernel. ``v1``: which protocol was agreed upon. Raises GatewayUnusable."""

    def __init__(
        self, target: Target, kernel_id: str, *, v1: bool, tls: ssl.SSLContext | None, patience: float
    ) -> None:
        url = target.url.replace("http", "ws", 1)
        try:
            self._connection = websocket.create_connection(
                f"{url}/api/kernels/{kernel_id}/channels?session_id={uuid.uuid4().hex}",
                header=[f"Authorization: token {target.token}"] if target.token else [],
                subprotocols=[V1] if v1 else None,
                sslopt={"context": tls} if tls else None,
                timeout=patience,
                skip_utf8_validation=True,  # in Python, it takes longer than all that is measured
            )
        except (OSError, websocket.WebSocketException) as error:
            raise GatewayUnusable(
                f"{target.url} gives no websocket to kernel {kernel_id}: {error}"
            ) from error
        self.v1 = self._connection.getsubprotocol() == V1

    def send(self, kind: str, content: dict[str, object]) -> str:
        """Ask on the shell channel; return the id of the request."""
        asked = uuid.uuid4().hex
        header = {
            "msg_id": asked,
            "msg_type": kind,
            "session": asked,
            "username": "bench",
            "version": "5.3",
            "date": "2026-01-01T00:00:00.000000Z",
        }
        if self.v1:
            parts = (json.dumps(header).encode(), b"{}", b"{}", json.dumps(content).encode())
            self._connection.send_binary(to_v1(Message("shell", header, parts)))
        else:
            message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}}
            self._connection.send(json.dumps({**message, "content": content, "buffers": []}))
        return asked

    def hear(self, timeout: float) -> Heard | None:
        """Return the next message, or None if there is none in time."""
        self._connection.settimeout(timeout)
        try:
            data = self._connection.recv()
        except websocket.WebSocketTimeoutException:
            return None
        except (OSError, websocket.WebSocketException) as error:
            raise GatewayUnusable(f"the websocket has ended: {error}") from error
        if isinstance(data, bytes) and self.v1:
            return _from_v1(data)
        message = json.loads(data)
        return Heard(
            message.get("channel", ""),
            message["header"]["msg_type"],
            message["parent_header"].get("msg_id", ""),
            json.dumps(message["content"]).encode(),
        )

    def reply(self, asked: str, patience: float) -> bool:
        """Wait for the reply to a request; return whether it came in time."""
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            heard = self.hear(left)
            if heard is not None and heard.channel == "shell" and heard.asked == asked:
                return True
        return False

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def _from_v1(data: bytes) -> Heard:
    (count,) = struct.unpack_from("<Q", data)
    offsets = struct.unpack_from(f"<{count}Q", data, 8)
    channel, header, parent, _, content = (data[offsets[n] : offsets[n + 1]] for n in range(5))
    return Heard(
        channel.decode(),
        json.loads(header)["msg_type"],
        json.loads(parent or b"{}").get("msg_id", ""),
        content,
    )
