"""Messages of a front end whose kernel has started before its mailbox is there."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any

from elsewhere.gateway.connection import GatewayWebsocketConnection
from elsewhere.gateway.wire import Message


class Started(GatewayWebsocketConnection):
    """A connection to a kernel that has started."""

    @property
    def _manager(self) -> Any:
        return SimpleNamespace(starting=None, execution_state="idle")


async def test_what_was_held_is_kept_in_order_until_there_is_a_mailbox() -> None:
    connection = Started.__new__(Started)
    messages = [Message("shell", {"msg_id": str(n), "msg_type": "x"}, (b"{}",) * 4) for n in range(3)]
    room = asyncio.Event()
    vars(connection).update(_held=deque(messages), _holds=True, _box=None, _kernel=None, _room=room)
    await connection._release_held()
    assert list(connection._held) == messages
    assert room.is_set()
