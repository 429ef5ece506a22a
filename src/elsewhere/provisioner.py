"""The kernel provisioner: what jupyter_client asks, passed on to the core."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase

from . import settings
from .core import Core
from .errors import CoreClosed, KernelGone
from .kernels import Kernel
from .launch import Host
from .records import KernelRecord
from .wish import Connection, Wish

PROGRESS_AFTER = 2.0
"""Seconds without a ready kernel after which a person wants to know why."""

SIGNAL_TIMEOUT = 5.0
_OWN = ("kernel_id", "kernel_spec", "parent")


class ElsewhereProvisioner(KernelProvisionerBase):
    """Runs the kernel where the stanza ``metadata.kernel_provisioner.config`` says.

    ``poll`` touches memory only. ``terminate`` and ``kill`` end the kernel process; its job ends in
    ``cleanup(restart=False)``, so a restart keeps the place and the allocation.
    """

    def __init__(self, **kwargs: Any) -> None:
        own = {name: kwargs.pop(name) for name in _OWN if name in kwargs}
        super().__init__(**own)
        self.stanza: dict[str, Any] = kwargs
        self.connection_info = {}
        self.owner = ""
        self._core: Core | None = None
        self._kernel: Kernel | None = None
        self._has_process = False
        self._told_end = False
        self._in_gateway = False
        self._restart_limit: int | None = None

    @property
    def has_process(self) -> bool:
        """Whether a kernel has been started that was not waited for since its end."""
        return self._has_process

    @property
    def kernel(self) -> Kernel | None:
        """What is known of the kernel: status, reason, steps with times, host and job."""
        return self._kernel

    async def poll(self) -> int | None:
        """Return None while the kernel runs, else its exit code."""
        if self._kernel is None:
            return 0
        exit_code = self._kernel.poll()
        if exit_code is not None:
            self._tell_end(self._kernel)
        return exit_code

    async def wait(self) -> int | None:
        """Wait for the kernel's end and return its exit code."""
        exit_code = 0
        if self._kernel is not None and self._core is not None:
            exit_code = await self._core.call(self._kernel.exited())
        self._has_process = False
        return exit_code

    async def send_signal(self, signum: int) -> None:
        """Signal the kernel. While its agent is out of reach this waits a little, and is done later."""
        if self._kernel is None or self._core is None or self._kernel.poll() is not None:
            return
        sent = asyncio.ensure_future(self._core.call(self._kernel.signal(signum)))
        done, _ = await asyncio.wait({sent}, timeout=SIGNAL_TIMEOUT)
        if not done:
            self.log.warning(
                "kernel %s is out of reach; signal %d will be delivered when its agent is back",
                self.kernel_id,
                signum,
            )
            sent.add_done_callback(lambda late: late.cancelled() or late.exception())
            return
        with contextlib.suppress(KernelGone):
            await sent

    async def kill(self, restart: bool = False) -> None:
        """End the kernel process by force."""
        await self.send_signal(signal.SIGKILL)

    async def terminate(self, restart: bool = False) -> None:
        """Ask the kernel process to end."""
        await self.send_signal(signal.SIGTERM)

    async def shutdown_requested(self, restart: bool = False) -> None:
        """The kernel was asked to exit; unless it is to be started again, its job ends with it."""
        if self._kernel is not None:
            self._kernel.last_start = not restart

    async def cleanup(self, restart: bool = False) -> None:
        """End the job, unless the kernel is to be started again in it. A closed core has ended it already."""
        if restart or self._kernel is None or self._core is None:
            return
        kernel, core = self._kernel, self._core
        self._has_process = False
        with contextlib.suppress(CoreClosed):
            await core.call(kernel.end())
        core.forget(kernel)

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Return what ``launch_kernel`` gets; the argv stays unfilled, for its paths are in the job."""
        assert self.kernel_spec is not None
        return {**kwargs, "cmd": list(self.kernel_spec.argv)}

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel, in its job if it has one, and return how to reach it once it listens.

        Raises SettingsError for a wrong stanza, LaunchFailed with the reason and the log's last lines.
        """
        wish, switchboard = self._wish(kwargs)
        loop = asyncio.get_running_loop()
        if self._core is None:
            self._core = await loop.run_in_executor(None, Core.shared, switchboard)
        if self._kernel is None:
            self._kernel = self._core.kernel(self.kernel_id)
        self._core.keep(self._kernel)
        self._told_end = False
        if getattr(self.parent, "shutting_down", False):
            raise KernelGone("it was shut down before it was launched")
        starting = asyncio.wrap_future(self._core.submit(self._kernel.start(wish)))
        try:
            connection = await self._with_progress(starting, self._kernel)
        except BaseException:
            starting.cancel()
            raise
        self._has_process = True
        self._let_restart()
        for warning in self._kernel.warnings:
            self.log.warning("kernel %s: %s", self.kernel_id, warning)
        self.connection_info = connection.info
        return self.connection_info

    def belong_to(self, core: Core) -> Kernel:
        """Let this core run the kernel; returns it, before it is launched."""
        self._in_gateway = True
        if self._kernel is None:
            self._core = core
            self._kernel = core.kernel(self.kernel_id)
        return self._kernel

    async def resume(
        self, core: Core, record: KernelRecord, resolved: settings.Resolved
    ) -> KernelConnectionInfo:
        """Take up the kernel that an earlier life of this home launched, and return how to reach it.

        ``taken_up`` tells when it answers.
        """
        kernel = self.belong_to(core)
        core.keep(kernel)
        connection = await core.call(kernel.resume(record, self._wish_again(record, resolved)))
        self._has_process = True
        self.connection_info = connection.info
        return self.connection_info

    async def taken_up(self, record: KernelRecord, resolved: settings.Resolved) -> None:
        """Wait until the resumed kernel listens or has exited. Raises NeverSubmitted, LaunchFailed."""
        assert self._kernel is not None
        assert self._core is not None
        await self._core.call(self._kernel.taken_up(self._wish_again(record, resolved)))

    def _wish_again(self, record: KernelRecord, resolved: settings.Resolved) -> Wish:
        assert self.kernel_spec is not None
        return Wish(
            record.kernel_name,
            self.kernel_spec,
            resolved,
            record.asked,
            Host.current(),
            record.owner,
            record.stanza,
        )

    async def get_provisioner_info(self) -> dict[str, Any]:
        """Return what identifies the kernel to a person: host, job, launch number."""
        info = await super().get_provisioner_info()
        if self._kernel is not None:
            host, job_id = self._kernel.where
            info.update(host=host, job_id=job_id, launch=self._kernel.launch_number)
        return info

    def _wish(self, kwargs: dict[str, Any]) -> tuple[Wish, settings.Switchboard]:
        assert self.kernel_spec is not None
        name = getattr(self.parent, "kernel_name", "") or self.kernel_spec.display_name
        loaded = settings.load()
        where = f"kernelspec {name}: metadata.kernel_provisioner.config"
        resolved = settings.resolve(self.stanza, loaded, where)
        host = Host.current()
        wish = Wish(name, self.kernel_spec, resolved, kwargs, host, self.owner, self.stanza)
        return wish, loaded.switchboard

    async def _with_progress(self, starting: asyncio.Future[Connection], kernel: Kernel) -> Connection:
        shown = ""
        while True:
            done, _ = await asyncio.wait({starting}, timeout=PROGRESS_AFTER)
            if done:
                return starting.result()
            if kernel.status != shown:
                shown = kernel.status
                self._show(shown)

    def _show(self, status: str) -> None:
        """A person who waits looks at stderr, unless there is a gateway's log."""
        if self._in_gateway:
            self.log.info("kernel %s: %s", self.kernel_id, status)
        else:
            print(f"elsewhere: kernel {self.kernel_id}: {status}", file=sys.stderr, flush=True)

    def _let_restart(self) -> None:
        """In a new job the stock restarter may restart the kernel again."""
        restarter = getattr(self.parent, "_restarter", None)
        if restarter is not None and self._restart_limit is not None:
            restarter.restart_limit, self._restart_limit = self._restart_limit, None

    def _tell_end(self, kernel: Kernel) -> None:
        """Once: why it is over. A job that is lost is not silently queued again by a stock host."""
        if self._told_end:
            return
        self._told_end = True
        shutting_down = bool(getattr(self.parent, "shutting_down", False))
        if not shutting_down:
            self.log.warning("kernel %s: %s", self.kernel_id, kernel.reason)
        restarter = getattr(self.parent, "_restarter", None)
        if kernel.job_lost and restarter is not None and self._restart_limit is None:
            self._restart_limit = restarter.restart_limit
            restarter.restart_limit = 0
