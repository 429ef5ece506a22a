"""One kernel as the gateway's HTTP side sees it: a stock kernel manager over our provisioner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import zmq
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.ioloop.restarter import AsyncIOLoopKernelRestarter
from jupyter_client.kernelspec import KernelSpec, NoSuchKernel
from jupyter_events import EventLogger
from jupyter_server.services.kernels.kernelmanager import ServerKernelManager
from traitlets import Type, default
from traitlets.log import get_logger

from elsewhere.changes import Changes
from elsewhere.core import Core
from elsewhere.errors import ElsewhereError, LaunchFailed, NeverSubmitted
from elsewhere.gateway.controlline import ControlLine
from elsewhere.gateway.detail import DEAD, ENDING, moment
from elsewhere.gateway.logs import KernelLog
from elsewhere.gateway.news import News
from elsewhere.kernels import Kernel
from elsewhere.provisioner import ElsewhereProvisioner
from elsewhere.records import KernelRecord
from elsewhere.settings import Resolved
from elsewhere.standing import NOWHERE, Standing

_RUNS = ("idle", "busy")


class GatewayRestarter(AsyncIOLoopKernelRestarter):
    """The stock restarter, but it leaves a kernel alone that is being shut down or started.

    Who listens is told by the kernel manager, which is there before the restarter.
    """

    async def poll(self) -> None:
        """Look once; our ``poll`` touches memory only, so nothing changes between look and restart."""
        manager = self.kernel_manager
        if not (manager.shutting_down or manager.ending) and manager.starting is None:
            await super().poll()

    @property
    def would_restart(self) -> bool:
        """Whether a kernel that has exited is started again at the next look."""
        used_up = self._restarting and self._restart_count >= self.restart_limit
        return self._pcallback is not None and not used_up

    def _fire_callbacks(self, event: str) -> None:
        self.kernel_manager.tell(event)


class GatewayKernelManager(ServerKernelManager):
    """Starts and restarts in a task of its own, so that whoever asked is answered at once.

    ``starting`` is that task while it runs. A failed start leaves the state ``dead`` and ``reason``.
    ``changes``: whatever is told of it changes. ``shown``: its line of the list, as long as it is true.
    ``owner``: whose it is, empty for whoever has the gateway's own token; ``shares``: with whom it is shared,
    and whether read-only; ``cluster``: where it runs, or will. ``ending``: it is being shut down; ``gone``:
    it has been.
    """

    restarter_class = Type(GatewayRestarter)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.starting: asyncio.Task[None] | None = None
        self.changes = Changes()
        self.ending = False
        self.gone = False
        self._known = asyncio.Event()
        self._news: News | None = None
        self._counted = 0.0
        self._noted = -1
        self.owner = ""
        self.cluster = ""
        self.shares: dict[str, bool] = {}
        self.shown: str | None = None
        self._listeners: dict[str, list[Callable[[], object]]] = {"restart": [], "dead": [], "shares": []}
        self.execution_state = "starting"
        self.last_activity = _now()
        self.observe(lambda _: self.changes.notify(), ["execution_state", "reason"])
        self.observe(self._forget_shown, ["execution_state", "reason", "last_activity"])
        self.observe(self._tell_activity, ["last_activity"])

    @default("event_logger")
    def _default_event_logger(self) -> EventLogger:
        """Take that of all kernels: the stock default reads its schema from the disk for each."""
        shared: EventLogger | None = getattr(self.parent, "event_logger", None)
        if shared is None:
            shared = super()._default_event_logger()
            if self.parent is not None:
                self.parent.event_logger = shared
        assert isinstance(shared, EventLogger)
        return shared

    def write_connection_file(self, **kwargs: Any) -> None:
        """Write none: nobody but the gateway connects, and it knows how."""

    def _connect_control_socket(self) -> None:
        """Stock code has a socket of ZMQ for each kernel, for what it asks at its end."""
        if self._control_socket is None and self.kernel is not None:
            assert self.parent is not None
            self._control_socket = ControlLine(self.parent.core, self.kernel)

    def _create_connected_socket(self, channel: str, identity: bytes | None = None) -> zmq.Socket[bytes]:
        self._let_in()
        return super()._create_connected_socket(channel, identity)

    def client(self, **kwargs: Any) -> AsyncKernelClient:
        """Return a client, which finds the kernel's sockets soon if not yet."""
        self._let_in()
        return super().client(**kwargs)

    def _let_in(self) -> None:
        if self.kernel is not None and self.parent is not None:
            self.parent.core.submit(self.kernel.let_in())

    @default("log")
    def _default_log(self) -> KernelLog:
        """Whatever is logged for this kernel, by stock classes too, carries its id."""
        return KernelLog(self.parent.log if self.parent is not None else get_logger(), self)

    @property
    def kernel(self) -> Kernel | None:
        """What the core knows of it."""
        provisioner = self.provisioner
        return provisioner.kernel if isinstance(provisioner, ElsewhereProvisioner) else None

    async def known_kernel(self) -> Kernel:
        """Wait until the core knows the kernel, which is before its launch, and return it."""
        await self._known.wait()
        assert self.kernel is not None
        return self.kernel

    def add_restart_callback(self, callback: Callable[[], object], event: str = "restart") -> None:
        """Have this called before each automatic restart, or (``dead``) when none will follow.

        Stock code forgets those that come before the kernel is ready.
        """
        self._listeners[event].append(callback)

    def remove_restart_callback(self, callback: Callable[[], object], event: str = "restart") -> None:
        """Call it no more. May be called for what was not added."""
        if callback in self._listeners[event]:
            self._listeners[event].remove(callback)

    def tell(self, event: str) -> None:
        """Call those that wait for this event."""
        for callback in list(self._listeners[event]):
            callback()

    async def _async_pre_start_kernel(self, **kwargs: Any) -> tuple[list[str], dict[str, Any]]:
        assert self.parent is not None
        async with self.parent.turns:
            prepared = await super()._async_pre_start_kernel(**kwargs)
            await asyncio.sleep(0)
        assert isinstance(self.provisioner, ElsewhereProvisioner)
        self.provisioner.owner = self.owner
        kernel = self.provisioner.belong_to(self.parent.core)
        if self._news is None:
            self._news = News(self._heard)
        kernel.changes.listener = self._news.ring
        self._known.set()
        return prepared

    pre_start_kernel = _async_pre_start_kernel

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kwargs: Any) -> None:
        """A launch that was not begun when the kernel was shut down would be ended by nobody."""
        if self.ending:
            raise LaunchFailed("submit", "the kernel was shut down before its launch")
        await super()._async_launch_kernel(kernel_cmd, **kwargs)

    _launch_kernel = _async_launch_kernel

    def begin(self, start: Mapping[str, Any]) -> asyncio.Task[None]:
        """Start the kernel, in a task that is returned and never fails."""
        self.execution_state, self.reason = "starting", ""
        self.starting = asyncio.create_task(self._begin(self.start_kernel, dict(start)))
        return self.starting

    def begin_restart(self, *, now: bool) -> asyncio.Task[None]:
        """Restart the kernel, in a task that is returned and never fails."""
        self.execution_state, self.reason = "restarting", ""
        restart = super()._async_restart_kernel
        self.starting = asyncio.create_task(self._begin(restart, {"now": now}))
        return self.starting

    async def _async_restart_kernel(self, now: bool = False, newports: bool = False, **start: Any) -> None:
        """Restart the kernel as the restarter does: ``starting`` meanwhile, and without an error."""
        await asyncio.wait({self.begin_restart(now=now)})

    restart_kernel = _async_restart_kernel

    async def _begin(self, start: Any, asked: Mapping[str, Any]) -> None:
        try:
            await start(**asked)
        except Exception as error:
            self.fails(error)
            self.stop_restarter()
            self.tell("dead")
        else:
            self.execution_state, self.reason = "idle", ""
        finally:
            self.last_activity = _now()
            self.starting = None
            self._heard()

    async def give_up(self) -> None:
        """End what is being started; the start's task ends then."""
        if isinstance(self.provisioner, ElsewhereProvisioner):
            await self.provisioner.cleanup(restart=False)
        if self.starting is not None and self.kernel is None:
            self.starting.cancel()

    async def resume(self, record: KernelRecord, resolved: Resolved) -> None:
        """Take up a kernel of an earlier life of this gateway; ``starting`` until it answers."""
        assert self.parent is not None
        core: Core = self.parent.core
        self.kernel_id = record.kernel_id
        asked: dict[str, Any] = dict(record.asked)
        self._keep_spec(record)
        await self._async_pre_start_kernel(**asked)
        assert isinstance(self.provisioner, ElsewhereProvisioner)
        info = await self.provisioner.resume(core, record, resolved)
        self._reconcile_connection_info(info)
        self._attempted_start = True
        self.ready.set_result(None)
        await self._async_post_start_kernel(**asked)
        self.starting = asyncio.create_task(self._take_up(self.provisioner, record, resolved))

    async def _take_up(
        self, provisioner: ElsewhereProvisioner, record: KernelRecord, resolved: Resolved
    ) -> None:
        try:
            await provisioner.taken_up(record, resolved)
        except NeverSubmitted:
            self.log.info("an earlier life of this gateway did not come to its submit")
            await self._begin(self.start_kernel, dict(record.asked))
        except ElsewhereError as error:
            self.fails(error)
            self.tell("dead")
        else:
            self._inherit_activity()
        finally:
            self.starting = None
            self._heard()

    def _keep_spec(self, record: KernelRecord) -> None:
        """A kernelspec that was removed meanwhile is missed only at the next restart."""
        try:
            _ = self.kernel_spec
        except NoSuchKernel:
            stanza = {"provisioner_name": "elsewhere", "config": dict(record.stanza)}
            self._kernel_spec = KernelSpec(
                display_name=record.kernel_name, metadata={"kernel_provisioner": stanza}
            )

    def dies(self, reason: str) -> None:
        """It is dead, for this reason."""
        self.execution_state, self.reason = "dead", reason
        self.last_activity = _now()

    def fails(self, error: Exception) -> None:
        """It could not be started: it is dead, and that is counted."""
        self.dies(str(error))
        if self.parent is not None and not self.ending:
            self.parent.metrics.failed(self.standing.cluster, error)

    @property
    def standing(self) -> Standing:
        """Where it stands, as the core and this gateway know it."""
        standing = self.kernel.standing if self.kernel is not None else NOWHERE
        reason = self.reason or standing.reason
        if self.ending:
            return replace(standing, reason=reason, state=ENDING, status="being shut down")
        if self.execution_state == "dead" and standing.state != "exited":
            return replace(standing, reason=reason, state=DEAD, status=reason.partition("\n")[0])
        return replace(standing, reason=reason)

    def note_news(self) -> None:
        """Take in what the core knows of it now, if anything has changed since that was done last."""
        kernel = self.kernel
        if kernel is None or kernel.changes.count != self._noted or self.execution_state not in _RUNS:
            self.note()

    def note(self) -> None:
        """Take in what the core knows of it now."""
        kernel = self.kernel
        if kernel is None or self.starting is not None:
            return
        self._noted = kernel.changes.count
        standing = kernel.standing
        if standing.state in ("exited", "dead"):
            if self._restarts_by_itself(kernel):
                self.execution_state, self.reason = "restarting", standing.reason
            elif not self.shutting_down and self.execution_state != "dead":
                self.dies(standing.reason)
        elif standing.state in ("idle", "busy"):
            self.execution_state, self.reason = standing.state, ""
            self.last_activity = max(self.last_activity, moment(kernel.active_at))
            self._count_start(standing)
        elif standing.state == "starting" and self.execution_state == "dead":
            self.execution_state, self.reason = "restarting", ""

    def _count_start(self, standing: Standing) -> None:
        steps = dict(standing.steps)
        asked = steps.get("asked", 0.0)
        if "kernel ready" in steps and asked > self._counted and self.parent is not None:
            self._counted = asked
            self.parent.metrics.started(standing.cluster, steps)

    def _heard(self) -> None:
        self.note()
        self.changes.notify()

    def _tell_activity(self, change: Any) -> None:
        """A server that ends itself when nobody uses it asks its kernel manager."""
        if self.parent is not None:
            self.parent.last_kernel_activity = max(self.parent.last_kernel_activity, change.new)

    def _forget_shown(self, change: object) -> None:
        self.shown = None

    def _inherit_activity(self) -> None:
        """A kernel of an earlier life of this gateway has been idle for as long as its agent says."""
        if self.kernel is not None and self.kernel.active_at:
            self.last_activity = moment(self.kernel.active_at)

    def _restarts_by_itself(self, kernel: Kernel) -> bool:
        """A front end that reads ``dead`` gives up, so it must not for the moment before a restart."""
        restarter = self._restarter
        return isinstance(restarter, GatewayRestarter) and restarter.would_restart and not kernel.job_lost


def _now() -> datetime:
    return datetime.now(timezone.utc)
