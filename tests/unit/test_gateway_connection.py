"""A front end that is there before its kernel is, and a fault in what serves it."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from elsewhere.gateway.connection import GatewayWebsocketConnection
from elsewhere.gateway.kernels import GatewayKernelManager
from elsewhere.gateway.mapping import GatewayMappingKernelManager
from elsewhere.gateway.wire import Message


class Started(GatewayWebsocketConnection):
    """A connection to a kernel that has started."""

    @property
    def _manager(self) -> Any:
        return SimpleNamespace(starting=None, execution_state="idle")

    @property
    def kernel_id(self) -> str:
        return "k"

    def hang_up(self, code: int, reason: str) -> None:
        self.told = code


async def test_what_was_held_is_kept_in_order_until_there_is_a_mailbox() -> None:
    connection = Started.__new__(Started)
    messages = [Message("shell", {"msg_id": str(n), "msg_type": "x"}, (b"{}",) * 4) for n in range(3)]
    room = asyncio.Event()
    vars(connection).update(_held=deque(messages), _holds=True, _box=None, _kernel=None, _room=room)
    await connection._release_held()
    assert list(connection._held) == messages
    assert room.is_set()


def test_a_kernel_has_its_id_before_its_start_has_a_turn() -> None:
    """Its websocket is accepted then, and its mailbox is named after the id."""
    mapping = GatewayMappingKernelManager()
    manager = GatewayKernelManager(parent=mapping)
    mapping._take("k", manager)
    assert manager.kernel_id == "k"


async def test_a_fault_in_what_serves_it_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise TypeError("a fault")

    connection = Started.__new__(Started)
    connection._tasks = []
    connection._begin(fails())
    await asyncio.wait(connection._tasks)
    await asyncio.sleep(0)
    assert connection.told == 1011
    assert "a fault" in caplog.text
