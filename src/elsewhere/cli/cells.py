"""A front end of one kernel, for those who ask it little: its language, and cells with what they print."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient

from elsewhere.wish import Connection


@dataclass(frozen=True)
class Ran:
    """What came of a cell: the content of its reply, and all that it printed."""

    reply: Mapping[str, Any]
    text: str


async def _do_nothing() -> None:
    pass


class FrontEnd:
    """Connected until ``close``. Everything waits as long as the kernel needs."""

    def __init__(self, connection: Connection) -> None:
        self._client: Any = AsyncKernelClient()
        self._client.load_connection_info(connection.info)
        self._client.start_channels(stdin=False, hb=False)

    def close(self) -> None:
        """Disconnect. May be called more than once."""
        self._client.stop_channels()
        self._client.context.destroy(linger=0)

    async def info(self) -> Mapping[str, Any]:
        """Return what the kernel says of itself."""
        return await self._reply(self._client.kernel_info())

    async def run(self, code: str, *, printed: Callable[[], Awaitable[object]] = _do_nothing) -> Ran:
        """Run a cell to its end; ``printed`` is called once, when it has printed something."""
        asked = self._client.execute(code, store_history=False, allow_stdin=False)
        text = ""
        while True:
            message = await self._client.get_iopub_msg()
            if message["parent_header"].get("msg_id") != asked:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                first, text = not text, text + content["text"]
                if first:
                    await printed()
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return Ran(await self._reply(asked), text)

    def ask_to_interrupt(self) -> None:
        """Interrupt by message, for kernels that are not interrupted by a signal."""
        self._client.control_channel.send(self._client.session.msg("interrupt_request", {}))

    async def _reply(self, asked: str) -> Mapping[str, Any]:
        while True:
            message = await self._client.get_shell_msg()
            if message["parent_header"].get("msg_id") == asked:
                content: Mapping[str, Any] = message["content"]
                return content
