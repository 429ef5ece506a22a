"""All kernels of the gateway: pending is normal, and a start or restart answers at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, Protocol

from jupyter_client.kernelspec import KernelSpec, NoSuchKernel
from jupyter_events import EventLogger
from jupyter_server.prometheus.metrics import KERNEL_CURRENTLY_RUNNING_TOTAL
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado import web
from traitlets import Int, default

from elsewhere.core import Core
from elsewhere.errors import ElsewhereError
from elsewhere.gateway.access import acting, concerns
from elsewhere.gateway.accounts import NONE, Account, Act
from elsewhere.gateway.culling import Culling, is_due
from elsewhere.gateway.detail import KernelDetail, moment, stamp
from elsewhere.gateway.kernels import GatewayKernelManager
from elsewhere.gateway.marks import Marks
from elsewhere.gateway.metrics import Metrics
from elsewhere.gateway.news import Streams
from elsewhere.gateway.policy import admitted, cluster_of, owner_of, stanza_of
from elsewhere.gateway.specs import GatewayKernelSpecManager
from elsewhere.records import KernelRecord, Records
from elsewhere.settings import Settings, resolve
from elsewhere.standing import Standing
from elsewhere.switchboard import Switchboard

NO_SHARES: Mapping[str, bool] = {}
STARTS_AT_ONCE = 4
"""Starts that are prepared in one turn of the loop, so that hundreds of them leave turns to others."""


class SharedRecords(Records, Protocol):
    """Records that also keep with whom a kernel is shared."""

    async def share(self, kernel_id: str, user: str, read_only: bool | None) -> None:
        """Write with whom; None: with this user no longer."""


class GatewayMappingKernelManager(AsyncMappingKernelManager):
    """Lists a kernel from the moment that it was asked for to the moment that it is gone."""

    core: Core
    """Who runs the kernels; set before the first of them."""
    records: SharedRecords
    """What survives this process; called on the core's loop."""
    event_logger: EventLogger | None = None
    """Where all kernels tell what happens to them; theirs once there is one."""
    marks: Marks
    """How far each front end has come; set before the first of them."""

    known: Callable[[str], Account | None] = staticmethod(lambda name: None)
    """Who is known by that name."""

    stopping = False
    """Whether the gateway ends, so that nothing may be given to a front end any more."""

    max_kernels = Int(
        0, config=True, help="Kernels at most, of all users together, pending ones too; 0: no limit."
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.turns = asyncio.Semaphore(STARTS_AT_ONCE)
        self.streams = Streams()
        self.metrics = Metrics(self.standings, self._switchboard)

    @default("kernel_manager_class")
    def _default_gateway_class(self) -> str:
        return "elsewhere.gateway.kernels.GatewayKernelManager"

    def manager(self, kernel_id: str) -> GatewayKernelManager:
        """Return one kernel's manager. Raises HTTPError 404."""
        self._check_kernel_id(kernel_id)
        manager = self._kernels[kernel_id]
        assert isinstance(manager, GatewayKernelManager)
        return manager

    async def start_kernel(
        self, *, kernel_id: str | None = None, path: str | None = None, **start: Any
    ) -> str:
        """Begin a start and return the kernel's id at once. Raises HTTPError for an unknown kernelspec.

        Who asks again for an id that is there gets that kernel, if it is of the same kernelspec.
        """
        asked = start.pop("kernel_name", None)
        name = asked or self.default_kernel_name
        missing = await self._specs.missing(name)  # from here to the start there is no other wait
        owner = owner_of(start)
        if kernel_id is not None and kernel_id in self:
            if Act.SEND not in self.may(acting(), kernel_id):
                raise web.HTTPError(409, "`kernel_id` cannot be had; leave it out, or choose another")
            there = self.manager(kernel_id).kernel_name
            if asked and asked != there:
                raise web.HTTPError(409, f"kernel {kernel_id} is there already, of the kernelspec {there!r}")
            return kernel_id
        self._refuse(missing)
        if path is not None:
            start["cwd"] = self.cwd_for_path(path)
        if kernel_id is not None:
            start["kernel_id"] = kernel_id
        manager, _, kernel_id = self.pre_start_kernel(name, start)
        assert isinstance(manager, GatewayKernelManager)
        manager.owner, manager.cluster = owner, self._admit(owner, manager.kernel_spec)
        self._take(kernel_id, manager)
        try:
            await self.core.call(self.records.launching(_asked(kernel_id, name, manager, start)))
        except ElsewhereError as error:
            self._drop(kernel_id)
            raise web.HTTPError(503, f"the kernel was not started: {error}") from error
        except BaseException:
            self._drop(kernel_id)
            raise
        concerns(kernel_id, owner)
        manager.begin(start)
        if not self._initialized_culler:
            self.initialize_culler()
        return kernel_id

    async def check_start(self, kernel_name: str) -> None:
        """Raise HTTPError: 400 for no such kernelspec, 409 for enough kernels, 403 for what one may not."""
        self._refuse(await self._specs.missing(kernel_name))
        self._admit(acting().name, self._specs.get_kernel_spec(kernel_name))

    def _refuse(self, missing: str) -> None:
        if missing:
            raise web.HTTPError(400, missing)
        self._check_limit()

    async def resume(
        self, record: KernelRecord, settings: Settings, shares: Mapping[str, bool] = NO_SHARES
    ) -> None:
        """Take up a kernel of an earlier life of this gateway; one that cannot be is shown as dead."""
        manager, _, kernel_id = self.pre_start_kernel(record.kernel_name, {"kernel_id": record.kernel_id})
        assert isinstance(manager, GatewayKernelManager)
        self._take(kernel_id, manager)
        manager.owner, manager.shares = record.owner, dict(shares)
        if not record.launch:
            manager.cluster = cluster_of(record.stanza, settings)
            manager.begin(record.asked)
            return
        try:
            resolved = resolve(record.stanza, settings, f"kernel {kernel_id}")
            manager.cluster = resolved.cluster
            await manager.resume(record, resolved)
        except ElsewhereError as error:
            manager.dies(str(error))
            manager.log.error("cannot take up kernel %s: %s", kernel_id, error)

    async def shutdown_kernel(self, kernel_id: str, now: bool = False, restart: bool = False) -> None:
        """End a kernel, whatever its state; one that is still starting too."""
        manager = self.manager(kernel_id)
        manager.shutting_down = manager.ending = True
        manager.changes.notify()
        if manager.starting is not None:
            starting = manager.starting
            await manager.give_up()
            await asyncio.wait({starting})
        if manager.has_kernel:
            await manager.shutdown_kernel(now=now, restart=restart)
        else:
            await manager.cleanup_resources(restart=restart)
        await self.core.call(self.records.ended(kernel_id))
        self._drop(kernel_id)

    async def restart_kernel(self, kernel_id: str, now: bool = False) -> None:
        """Begin a restart and return at once. Raises HTTPError 409 while it is starting."""
        manager = self.manager(kernel_id)
        if manager.starting is not None:
            raise web.HTTPError(409, f"kernel {kernel_id} is still starting; wait for it, or shut it down")
        if manager.execution_state == "dead":
            self._check_limit()
            self._admit(manager.owner, manager.kernel_spec)
        manager.begin_restart(now=now)

    async def interrupt_kernel(self, kernel_id: str) -> None:
        """Interrupt a kernel. Raises HTTPError 409 with the reason when there is none to interrupt."""
        manager = self.manager(kernel_id)
        if manager.starting is not None:
            status = manager.kernel.status if manager.kernel is not None else "starting"
            raise web.HTTPError(409, f"kernel {kernel_id} cannot be interrupted: {status}")
        if not manager.has_kernel:
            raise web.HTTPError(409, f"kernel {kernel_id} cannot be interrupted: {manager.reason or 'dead'}")
        await manager.interrupt_kernel()

    async def cull_kernels(self) -> None:
        """Look at all kernels, and end those that were idle for too long, at the same time."""
        now = datetime.now(timezone.utc)
        due = [kernel_id for kernel_id in list(self._kernels) if self._is_due(kernel_id, now)]
        for result in await asyncio.gather(*map(self._cull, due), return_exceptions=True):
            if isinstance(result, BaseException):
                self.log.error("while culling a kernel: %s", result)

    def _is_due(self, kernel_id: str, now: datetime) -> bool:
        manager = self.manager(kernel_id)
        manager.note()
        return not manager.ending and is_due(
            Culling(self._idle_timeout(manager), self.cull_connected, self.cull_busy),
            state=manager.execution_state or "unknown",
            pending=manager.starting is not None,
            connections=self._kernel_connections.get(kernel_id, 0),
            last_activity=manager.last_activity,
            now=now,
        )

    def _idle_timeout(self, manager: GatewayKernelManager) -> float:
        """A kernelspec may have a timeout of its own, as in jupyter_server."""
        try:
            spec = manager.kernel_spec
        except NoSuchKernel:  # removed since the kernel was started
            return float(self.cull_idle_timeout)
        metadata = spec.metadata if spec is not None else {}
        return float(metadata.get("cull_idle_timeout", self.cull_idle_timeout))

    async def _cull(self, kernel_id: str) -> None:
        manager = self.manager(kernel_id)
        self.log.warning(
            "culling kernel %s (%s, %s, %d connections), not in use since %s",
            kernel_id,
            manager.kernel_name,
            manager.execution_state,
            self._kernel_connections.get(kernel_id, 0),
            stamp(manager.last_activity),
        )
        await self.shutdown_kernel(kernel_id)
        self.metrics.culled.inc()

    def stop_culling(self) -> None:
        """Cull no more; for a server that stops."""
        if self._culler_callback is not None:
            self._culler_callback.stop()

    async def shutdown_all(self, now: bool = False) -> None:
        """End every kernel, many at a time."""
        ends = [self.shutdown_kernel(kernel_id, now=now) for kernel_id in list(self._kernels)]
        for result in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(result, BaseException):
                self.log.error("while shutting down a kernel: %s", result)

    _async_start_kernel = start_kernel
    _async_shutdown_kernel = shutdown_kernel
    _async_restart_kernel = restart_kernel
    _async_shutdown_all = shutdown_all

    def may(self, account: Account, kernel_id: str) -> frozenset[Act]:
        """Return what an account may do with a kernel; nothing with one that there is not."""
        manager = self._kernels.get(kernel_id)
        return account.may(manager.owner, manager.shares) if manager is not None else NONE

    def is_owned_by(self, account: Account, kernel_id: str) -> bool:
        """Whether it is this account's own kernel."""
        manager = self._kernels.get(kernel_id)
        own = manager is not None and manager.owner == account.name
        return own and Act.END in self.may(account, kernel_id)

    async def share(self, kernel_id: str, user: str, read_only: bool | None) -> None:
        """Let a user see a kernel, and use it unless ``read_only``; None takes that back."""
        manager = self.manager(kernel_id)
        try:
            await self.core.call(self.records.share(kernel_id, user, read_only))
        except ElsewhereError as error:
            raise web.HTTPError(503, f"it is as it was: {error}") from error
        manager.shares = {name: only for name, only in manager.shares.items() if name != user}
        if read_only is not None:
            manager.shares[user] = read_only
        manager.tell("shares")
        manager.changes.notify()

    def list_text(self) -> str:
        """Return the kernels of who asks as JSON; what was not changed was written before."""
        account, kernels = acting(), self.list_kernel_ids()
        if not account.is_admin:
            kernels = [kernel_id for kernel_id in kernels if Act.SEE in self.may(account, kernel_id)]
        return f"[{','.join(map(self._shown, kernels))}]"

    def _shown(self, kernel_id: str) -> str:
        manager = self.manager(kernel_id)
        manager.note_news()
        if manager.shown is None:
            manager.shown = json.dumps(self.kernel_model(kernel_id))
        return manager.shown

    def kernel_model(self, kernel_id: str) -> dict[str, Any]:
        """Return what the REST API shows of a kernel."""
        manager = self.manager(kernel_id)
        manager.note()
        model: dict[str, Any] = {
            "id": kernel_id,
            "name": manager.kernel_name,
            "last_activity": stamp(manager.last_activity),
            "execution_state": manager.execution_state,
            "connections": self._kernel_connections.get(kernel_id, 0),
        }
        if manager.reason:
            model["reason"] = manager.reason
        return model

    def detailed_model(self, kernel_id: str) -> KernelDetail:
        """Return all that is known of a kernel: where it runs, as what job, and how it came there."""
        manager = self.manager(kernel_id)
        manager.note()
        standing = manager.standing
        return KernelDetail(
            id=kernel_id,
            name=manager.kernel_name,
            last_activity=manager.last_activity,
            execution_state=manager.execution_state or "unknown",
            connections=self._kernel_connections.get(kernel_id, 0),
            owner=manager.owner,
            reason=standing.reason,
            state=standing.state,
            status=standing.status,
            cluster=standing.cluster,
            backend=standing.backend,
            host=standing.host,
            job_id=standing.job_id,
            launch=standing.launch,
            start=standing.start,
            connected=standing.connected,
            steps={name: moment(at) for name, at in standing.steps},
            spooled_bytes=standing.spooled,
            warnings=standing.warnings,
        )

    def standings(self) -> list[Standing]:
        """Return where each kernel stands."""
        return [self.manager(kernel_id).standing for kernel_id in list(self._kernels)]

    @property
    def _specs(self) -> GatewayKernelSpecManager:
        specs = self.kernel_spec_manager
        assert isinstance(specs, GatewayKernelSpecManager)
        return specs

    def _switchboard(self) -> Switchboard | None:
        core: Core | None = getattr(self, "core", None)
        return core.home.switchboard if core is not None else None

    def notify_connect(self, kernel_id: str) -> None:
        """A front end has joined the kernel."""
        super().notify_connect(kernel_id)
        self._tell_change(kernel_id)

    def notify_disconnect(self, kernel_id: str) -> None:
        """A front end has left the kernel."""
        super().notify_disconnect(kernel_id)
        self._tell_change(kernel_id)

    def _tell_change(self, kernel_id: str) -> None:
        if kernel_id in self:
            self.manager(kernel_id).shown = None
            self.manager(kernel_id).changes.notify()

    def _check_limit(self) -> None:
        """A pending kernel counts; one that is dead is only shown."""
        alive = sum(manager.execution_state != "dead" for manager in self._kernels.values())
        if self.max_kernels and alive >= self.max_kernels:
            raise web.HTTPError(
                409, f"this gateway runs {self.max_kernels} kernels at most, and does; shut one down first"
            )

    def _admit(self, owner: str, spec: KernelSpec | None) -> str:
        """Return the cluster that a kernel is for. Raises HTTPError for one that its owner may not have."""
        account = acting()
        if account.name != owner:
            account = self.known(owner) or Account(owner)

        def kernels_on(cluster: str) -> int:
            managers = map(self.manager, list(self._kernels))
            mine = (one for one in managers if (one.owner, one.cluster) == (owner, cluster))
            return sum(one.execution_state != "dead" for one in mine)

        return admitted(account, stanza_of(spec), kernels_on)

    def _take(self, kernel_id: str, manager: GatewayKernelManager) -> None:
        self._kernels[kernel_id] = manager
        manager.kernel_id = kernel_id  # the stock one has it only once its start is under way
        KERNEL_CURRENTLY_RUNNING_TOTAL.labels(type=manager.kernel_name).inc()
        self._kernel_connections[kernel_id] = 0

    def _drop(self, kernel_id: str) -> None:
        manager = self._kernels.pop(kernel_id, None)
        if isinstance(manager, GatewayKernelManager):
            KERNEL_CURRENTLY_RUNNING_TOTAL.labels(type=manager.kernel_name).dec()
            manager.gone = True
            manager.changes.notify()
        self._kernel_connections.pop(kernel_id, None)
        self.marks.forget(kernel_id)


def _asked(
    kernel_id: str, name: str, manager: GatewayKernelManager, start: Mapping[str, Any]
) -> KernelRecord:
    """Return what is written of a kernel before its first launch, so that who asked can rely on it."""
    asked = {key: value for key, value in start.items() if key != "kernel_id"}
    return KernelRecord(
        kernel_id=kernel_id,
        kernel_name=name,
        owner=manager.owner,
        launch=0,
        start=0,
        stanza=stanza_of(manager.kernel_spec),
        asked=asked,
        key="",
        signature_scheme="",
        token_hash="",
    )
