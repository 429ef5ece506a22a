"""A websocket of one kernel: accepted at once, held while the kernel is pending, told of a failure.

What the kernel says comes as letters of a mailbox, and is given to the front end's socket one message
after the other, with a mark before and after each. So a front end that comes back, to this gateway or
to the next, gets what it missed and nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections import deque
from collections.abc import Coroutine
from typing import Any, ClassVar

from jupyter_server.services.kernels.connection.base import BaseKernelWebsocketConnection
from tornado import web
from tornado.websocket import WebSocketClosedError

from elsewhere.core import Core
from elsewhere.gateway import wire
from elsewhere.gateway.access import REFUSED
from elsewhere.gateway.accounts import NONE, Act
from elsewhere.gateway.failures import answers, status
from elsewhere.gateway.kernels import GatewayKernelManager
from elsewhere.gateway.marks import Mark, Marks
from elsewhere.gateway.wire import Message, NotAMessage
from elsewhere.kernels import Kernel
from elsewhere.mailbox import Letter, Mailbox

HELD_BYTES = 16 * 1024 * 1024
"""Bytes that wait for a kernel, above which no more is read from its front end."""

Key = tuple[str, str]


class GatewayWebsocketConnection(BaseKernelWebsocketConnection):
    """Between one websocket and one mailbox. A front end that names a ``session_id`` may come back."""

    _open: ClassVar[dict[Key, GatewayWebsocketConnection]] = {}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._box: Mailbox | None = None
        self._kernel: Kernel | None = None
        self._letters: deque[Letter | Message] = deque()
        self._arrived = asyncio.Event()
        self._turn = asyncio.Event()
        self._held: deque[Message] = deque()
        self._holds = True
        self._room = asyncio.Event()
        self._room.set()
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False
        self._launch = -1
        self._mark: Mark | None = None

    # ---- what jupyter_server calls

    async def prepare(self) -> None:
        """Let an older connection of the same front end go; do not wait for the kernel."""
        if self.multi_kernel_manager.stopping:
            raise web.HTTPError(503, "the gateway is stopping; it will be back")
        name = self.websocket_handler.get_argument("session_id", "")
        self._comes_back = bool(name)
        account = getattr(self.websocket_handler, "account", None)
        whose = f"{account.name}\0" if account is not None and account.name else ""  # no name has a NUL
        self._key: Key = (self.kernel_id, whose + (name or secrets.token_hex(16)))
        older = self._open.pop(self._key, None)
        if older is not None:
            older.log.info("a newer connection of session %s to kernel %s takes over", name, self.kernel_id)
            older.hang_up(1000, "a newer connection of this session has taken over")

    async def connect(self) -> None:
        """Join the kernel now, or when it is known."""
        self.websocket_handler.set_nodelay(True)
        self.multi_kernel_manager.notify_connect(self.kernel_id)
        self._open[self._key] = self
        manager = self._manager
        manager.add_restart_callback(self._tell_restarting)
        manager.add_restart_callback(self._tell_dead, "dead")
        manager.add_restart_callback(self._shares_changed, "shares")
        self._begin(self._join())
        self._begin(self._serve())
        self._begin(self._release_held())

    def disconnect(self) -> None:
        """The client has gone. May be called more than once."""
        if self._over or not self._tasks:
            return
        self._over = True
        for task in self._tasks:
            task.cancel()
        self._room.set()
        if self._open.get(self._key) is self:
            del self._open[self._key]
        manager = self._manager
        manager.remove_restart_callback(self._tell_restarting)
        manager.remove_restart_callback(self._tell_dead, "dead")
        manager.remove_restart_callback(self._shares_changed, "shares")
        self.multi_kernel_manager.notify_disconnect(self.kernel_id)
        if self._kernel is not None and self._box is not None:
            kernel, box, for_good = self._kernel, self._box, not self._comes_back
            self._core.soon(lambda: kernel.front_ends.close(box, for_good=for_good))

    @classmethod
    def hang_up_on_all(cls) -> None:
        """The gateway stops: from now on nothing is given to any front end of which no mark is made."""
        for one in list(cls._open.values()):
            one.hang_up(1001, "the gateway is stopping; it will be back")

    def hang_up(self, code: int, reason: str) -> None:
        """End the connection. What the system has not taken whole is given again to who comes back."""
        self.disconnect()
        connection = self.websocket_handler.ws_connection
        stream = connection.stream if connection is not None else None
        if stream is not None and stream.writing():
            stream.close()
            return
        if self._mark is not None:
            self._mark.do(self._mark.intended)
        self.websocket_handler.close(code, reason)

    async def take(self, data: str | bytes) -> None:
        """Pass a client's message on, or keep it until there is a kernel; returns when more may come."""
        try:
            message = wire.from_websocket(data, self.websocket_handler.selected_subprotocol)
        except NotAMessage as error:
            self.log.warning("kernel %s: ignored from a websocket: %s", self.kernel_id, error)
            return
        allowed = self.multi_kernel_manager.allowed_message_types
        if allowed and message.kind not in allowed:
            self.log.warning(
                "kernel %s: a message of type %.64r is not allowed", self.kernel_id, message.kind
            )
            return
        if Act.SEND not in self._may:
            for answer in answers(message, REFUSED[Act.SEND].format(self.kernel_id), self.session):
                self._enqueue(answer)
        elif self._holds or not self._decided:
            self._hold(message)
        elif self._dead:
            self._answer_with_failure(message)
        else:
            self._post(message)
        await self._room.wait()

    def handle_incoming_message(self, incoming_msg: str) -> None:
        """For callers that cannot wait: as ``take``, without back-pressure."""
        self._begin(self.take(incoming_msg))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this until the client has gone; where it fails, the client is told to come back."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.log.error("kernel %s: a fault at its websocket", self.kernel_id, exc_info=error)
            self.hang_up(1011, "a fault in the gateway; come back")

    # ---- to the kernel

    def _hold(self, message: Message) -> None:
        self._held.append(message)
        if sum(len(part) for one in self._held for part in one.parts) > HELD_BYTES:
            self._room.clear()
        if not self._holds:
            self._holds = True
            self._begin(self._release_held())

    async def _release_held(self) -> None:
        """When the start is over, pass on what waits for it, or answer it."""
        while not self._decided:
            self._turn.clear()
            starting = self._manager.starting
            await (asyncio.wait({starting}) if starting is not None else self._turn.wait())
        self._holds = False
        if self._dead and self._held:
            self._tell_dead()
        while self._held:
            message = self._held.popleft()
            if self._dead:
                self._answer_with_failure(message)
            else:
                self._post(message)
        self._room.set()

    @property
    def _dead(self) -> bool:
        return self._manager.execution_state == "dead"

    @property
    def _decided(self) -> bool:
        """Whether it is known what becomes of a message: the start is over, and it died or has a mailbox."""
        return self._manager.starting is None and (self._dead or self._box is not None)

    def _post(self, message: Message) -> None:
        assert self._box is not None
        data = wire.to_kernel(message, self._manager.session.key)
        self._core.soon(self._box.post, message.channel, data)
        if self._box.waiting > HELD_BYTES:
            self._room.clear()
            self._begin(self._wait_for_room(self._box))

    async def _wait_for_room(self, box: Mailbox) -> None:
        await self._core.call(box.drained(HELD_BYTES // 2))
        self._room.set()

    # ---- from the kernel

    async def _join(self) -> None:
        """Have a mailbox as soon as the kernel is known."""
        self._kernel = kernel = await self._manager.known_kernel()
        self._box = await self._core.call(
            kernel.front_ends.open(self._mailbox_name, self._letter_came, self._received)
        )
        self._turn.set()

    async def _serve(self) -> None:
        """Give the front end what comes."""
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._letters:
                    await self._give(self._letters.popleft())
        except WebSocketClosedError:
            pass  # the handler calls ``disconnect``

    @property
    def _mailbox_name(self) -> str:
        """Not what the client said, which may be anything."""
        return hashlib.sha256("\n".join(self._key).encode("utf-8", "surrogatepass")).hexdigest()

    def _received(self, launch: int) -> int:
        """Called on the core's loop: the last message that this front end has of a launch."""
        mark = self._marks.of(self.kernel_id, launch, self._mailbox_name)
        done, intended = mark.done, mark.intended
        if intended > done:
            self.log.warning(
                "kernel %s: message %d may come to a front end twice: "
                "the gateway was killed while it was handing it over",
                self.kernel_id,
                intended,
            )
            mark.intend(done)
        return done

    def _letter_came(self, letter: Letter) -> None:
        """Called on the core's loop."""
        self._loop.call_soon_threadsafe(self._enqueue, letter)

    def _enqueue(self, letter: Letter | Message) -> None:
        if not self._over:
            self._letters.append(letter)
            self._arrived.set()

    async def _give(self, letter: Letter | Message) -> None:
        if isinstance(letter, Message):
            await self._write(letter)
            return
        if Act.SEE not in self._may:
            self._leave_whom_may_not_see()
            return
        if letter.launch != self._launch:
            self._launch = letter.launch
            self._mark = self._marks.of(self.kernel_id, letter.launch, self._mailbox_name)
        number = letter.last - len(letter.ends) if letter.last else 0
        key, start = self._manager.session.key, 0
        for end in letter.ends:
            number += 1 if letter.last else 0
            await self._give_one(letter, start, end, key, number)
            start = end
        if self._box is not None and letter.last:
            self._core.soon(self._box.took, letter.launch, letter.last)
        await asyncio.sleep(0)

    async def _give_one(self, letter: Letter, start: int, end: int, key: bytes, number: int) -> None:
        mark = self._mark if number else None
        try:
            message = wire.from_kernel(letter.channel, letter.wire, start, end, key)
        except NotAMessage as error:
            self.log.warning("kernel %s: left out %s", self.kernel_id, error)
        else:
            if mark is not None:
                mark.intend(number)
            await self._write(self._with_traceback_replaced(message))
        if mark is not None:
            mark.do(number)

    async def _write(self, message: Message) -> None:
        """Return when the system has the whole message, which is at once unless the front end is slow."""
        handler = self.websocket_handler
        if handler.selected_subprotocol == wire.V1:
            written = handler.write_message(wire.to_v1(message), binary=True)
        else:
            try:
                data = wire.to_legacy(message)
            except NotAMessage as error:
                self.log.warning("kernel %s: left out %s", self.kernel_id, error)
                return
            written = handler.write_message(data, binary=isinstance(data, bytes))
        stream = handler.ws_connection.stream if handler.ws_connection is not None else None
        if stream is not None and stream.writing():
            await written
        else:
            written.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _with_traceback_replaced(self, message: Message) -> Message:
        if self.multi_kernel_manager.allow_tracebacks or message.kind != "error":
            return message
        told = [self.multi_kernel_manager.traceback_replacement_message]
        content = {"ename": "ExecutionError", "evalue": "Execution error", "traceback": told}
        parts = (*message.parts[:3], json.dumps(content).encode(), *message.parts[4:])
        return Message(message.channel, message.header, parts)

    # ---- what the gateway itself tells

    def _answer_with_failure(self, message: Message) -> None:
        reason = self._manager.reason or "the kernel is dead"
        for answer in answers(message, reason, self.session):
            self._enqueue(answer)

    def _tell_restarting(self) -> None:
        self._enqueue(status("restarting", self.session))

    def _tell_dead(self) -> None:
        self._turn.set()
        self._enqueue(status("dead", self.session))

    # ---- whose they are

    @property
    def _may(self) -> frozenset[Act]:
        """What who is at the other end may do now: a token may have been revoked since it came."""
        handler = self.websocket_handler
        account = handler.settings["elsewhere_gate"].account(handler.current_user)
        return self.multi_kernel_manager.may(account, self.kernel_id) if account is not None else NONE

    def _shares_changed(self) -> None:
        if Act.SEE not in self._may:
            self._leave_whom_may_not_see()

    def _leave_whom_may_not_see(self) -> None:
        self.hang_up(1008, "you may not see this kernel any more")

    @property
    def _manager(self) -> GatewayKernelManager:
        manager = self.kernel_manager
        assert isinstance(manager, GatewayKernelManager)
        return manager

    @property
    def _core(self) -> Core:
        core: Core = self.multi_kernel_manager.core
        return core

    @property
    def _marks(self) -> Marks:
        marks: Marks = self.multi_kernel_manager.marks
        return marks
