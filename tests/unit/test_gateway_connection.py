"""A front end that is there before its kernel is, and a fault in what serves it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_client.session import Session

from elsewhere.gateway.connection import GatewayWebsocketConnection
from elsewhere.gateway.kernels import GatewayKernelManager
from elsewhere.gateway.mapping import GatewayMappingKernelManager
from elsewhere.gateway.wire import Message
from elsewhere.mailbox import Mailbox


class Connected(GatewayWebsocketConnection):
    """A connection to a kernel whose state is set by hand; nothing reaches a kernel or a websocket."""

    manager: SimpleNamespace
    posted: list[Message]
    answered: list[Message]
    told: int

    @classmethod
    def holding(cls, messages: list[Message]) -> Connected:
        one = cls.__new__(cls)
        one.manager = SimpleNamespace(starting=None, execution_state="starting")
        one.posted, one.answered = [], []
        one._tasks, one._letters, one._held = [], deque(), deque(messages)
        one._holds, one._over, one._box = True, False, None
        one._turn, one._room, one._arrived = asyncio.Event(), asyncio.Event(), asyncio.Event()
        one.session = Session()
        return one

    @property
    def _manager(self) -> Any:
        return self.manager

    @property
    def kernel_id(self) -> str:
        return "k"

    def hang_up(self, code: int, reason: str) -> None:
        self.told = code

    def _post(self, message: Message) -> None:
        self.posted.append(message)

    def _answer_with_failure(self, message: Message) -> None:
        self.answered.append(message)


MESSAGES = [Message("shell", {"msg_id": str(n), "msg_type": "x"}, (b"{}",) * 4) for n in range(3)]


async def released(connection: Connected, happens: Callable[[], object]) -> None:
    """Begin to release, see that nothing is decided, have that happen, and wait for the end."""
    release = asyncio.create_task(connection._release_held())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not release.done()
    happens()
    await release
    assert connection._room.is_set()
    assert not connection._holds


async def test_what_was_held_waits_for_the_mailbox_and_goes_there_in_order() -> None:
    connection = Connected.holding(MESSAGES)

    def joins() -> None:
        connection._box = Mailbox("front end", lambda _: None, 1, 0)
        connection._turn.set()

    await released(connection, joins)
    assert (connection.posted, connection.answered) == (MESSAGES, [])


async def test_what_was_held_is_answered_when_the_kernel_dies_before_there_is_a_mailbox() -> None:
    connection = Connected.holding(MESSAGES)

    def dies() -> None:
        connection.manager.execution_state = "dead"
        connection._tell_dead()

    await released(connection, dies)
    assert (connection.posted, connection.answered) == ([], MESSAGES)


def test_a_kernel_has_its_id_before_its_start_has_a_turn() -> None:
    """Its websocket is accepted then, and its mailbox is named after the id."""
    mapping = GatewayMappingKernelManager()
    manager = GatewayKernelManager(parent=mapping)
    mapping._take("k", manager)
    assert manager.kernel_id == "k"


async def test_a_fault_in_what_serves_it_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise TypeError("a fault")

    connection = Connected.holding([])
    connection._begin(fails())
    await asyncio.wait(connection._tasks)
    await asyncio.sleep(0)
    assert connection.told == 1011
    assert "a fault" in caplog.text


async def test_whoever_wants_sockets_of_a_kernel_has_them_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    let_in: list[str] = []
    monkeypatch.setattr(GatewayKernelManager, "_let_in", lambda self: let_in.append("client"))
    manager = GatewayKernelManager(transport="ipc", ip="/nowhere/k", shell_port=1)
    manager.client()
    assert let_in == ["client"]
    manager.connect_shell().close(linger=0)
    assert let_in == ["client", "client"]
    manager.context.destroy()
