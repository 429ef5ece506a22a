"""A websocket of one kernel: accepted at once, held while the kernel is pending, told of a failure."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

from jupyter_server.services.kernels.connection.base import (
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection

from elsewhere.gateway.kernels import GatewayKernelManager

HELD_AT_MOST = 1000


class GatewayWebsocketConnection(ZMQChannelsWebsocketConnection):
    """The stock relay without its waits: no nudge, no rate limit, no kernel_info of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.limit_rate = False
        self._held: deque[str | bytes] = deque()
        self._waiting: asyncio.Task[None] | None = None

    @property
    def _manager(self) -> GatewayKernelManager:
        manager = self.kernel_manager
        assert isinstance(manager, GatewayKernelManager)
        return manager

    async def prepare(self) -> None:
        """Let a stale connection of the same session go; do not wait for the kernel."""
        await self._register_session()

    async def connect(self) -> None:
        """Join the kernel now, or when it is ready."""
        self.websocket_handler.set_nodelay(True)
        self.multi_kernel_manager.notify_connect(self.kernel_id)
        ZMQChannelsWebsocketConnection._open_sockets.add(self)
        if self._manager.starting is None and self._manager.has_kernel:
            self._join()
        else:
            self._waiting = asyncio.create_task(self._join_when_ready())

    async def _join_when_ready(self) -> None:
        while self._manager.starting is not None:
            await asyncio.wait({self._manager.starting})
        self._waiting = None
        if self._manager.has_kernel:
            self._join()
            return
        while self._held:
            self._answer_with_failure(self._held.popleft())

    def _join(self) -> None:
        self.session.key = self._manager.session.key
        self.create_stream()
        for stream in self.channels.values():
            stream.on_recv_stream(self.handle_outgoing_message)
        self._manager.add_restart_callback(self.on_kernel_restarted)
        self._manager.add_restart_callback(self.on_restart_failed, "dead")
        while self._held:
            super().handle_incoming_message(self._held.popleft())  # type: ignore[arg-type]

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """Pass a client's message on, or keep it until there is a kernel."""
        if self.channels:
            super().handle_incoming_message(incoming_msg)
        elif self._waiting is not None and len(self._held) < HELD_AT_MOST:
            self._held.append(incoming_msg)
        elif self._waiting is not None:
            self.websocket_handler.close(1013, "too many messages for a kernel that is still starting")
        else:
            self._answer_with_failure(incoming_msg)

    def disconnect(self) -> None:
        """The client has gone."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self.channels:
            super().disconnect()
            return
        self.multi_kernel_manager.notify_disconnect(self.kernel_id)
        if self._open_sessions.get(self.session_key) is self.websocket_handler:
            self._open_sessions.pop(self.session_key)
        ZMQChannelsWebsocketConnection._open_sockets.discard(self)
        if not self._close_future.done():
            self._close_future.set_result(None)

    def _answer_with_failure(self, incoming_msg: Any) -> None:
        """A request that no kernel will answer gets the reason, in the way in which a notebook shows it."""
        header = self._header_of(incoming_msg)
        if header is None or header.get("msg_type") != "execute_request":
            return
        reason = self._manager.reason or "the kernel is dead"
        content = {
            "ename": "KernelDead",
            "evalue": reason.partition("\n")[0],
            "traceback": reason.splitlines(),
        }
        for channel, kind, body in (
            ("iopub", "status", {"execution_state": "busy"}),
            ("iopub", "error", content),
            ("iopub", "status", {"execution_state": "idle"}),
            ("shell", "execute_reply", {"status": "error", "execution_count": 0, **content}),
        ):
            message = self.session.msg(kind, body, parent={"header": header})
            message["channel"] = channel
            self._write(channel, message)

    def _write(self, channel: str, message: dict[str, Any]) -> None:
        if self.subprotocol == "v1.kernel.websocket.jupyter.org":
            data = serialize_msg_to_ws_v1(message, channel, self.session.pack)
            self.write_message(data, binary=True)
        else:
            message.pop("msg_id", None)
            self.write_message(json.dumps({**message, "buffers": []}, default=str))

    def _header_of(self, incoming_msg: Any) -> dict[str, Any] | None:
        try:
            if self.subprotocol == "v1.kernel.websocket.jupyter.org":
                _, parts = deserialize_msg_from_ws_v1(incoming_msg)
                header = self.session.unpack(parts[0])
            else:
                header = json.loads(incoming_msg)["header"]
        except (ValueError, KeyError, TypeError, IndexError):
            return None
        return header if isinstance(header, dict) else None
