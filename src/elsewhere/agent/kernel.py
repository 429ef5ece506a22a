"""The kernel of one start: from its process to ready, to its exit."""

from __future__ import annotations

import asyncio
import shutil
import signal
from typing import Any, Callable, Dict, List, Optional

from . import order as orders
from . import spawn
from .iopub import IopubReader, listen
from .outbox import Outbox
from .process import LogTail, Process, exit_reason
from .words import Report

LAST_OUTPUT_TIMEOUT = 1.0
LINGER = 60.0
"""Seconds that a kernel has to exit after it closed its iopub socket: its own clean-up comes then."""
WELCOME_TIMEOUT = 0.25
PORT_TAKEN = "address already in use"


class Kernel:
    """One start of the kernel. ``changed`` is called whenever ``report`` has something new."""

    def __init__(self, start: int, directory: str, outbox: Outbox, changed: Callable[[], None]) -> None:
        self.start = start
        self.phase = "starting"
        self.connection: Optional[Dict[str, Any]] = None
        self.execution_state = "unknown"
        self._directory = directory
        self._outbox = outbox
        self._changed = changed
        self._order: Dict[str, Any] = {}
        self._process: Optional[Process] = None
        self._reader: Optional[IopubReader] = None
        self._tasks: List[asyncio.Task[None]] = []
        self._tail = LogTail()
        self._warnings: List[str] = []
        self._reason = ""
        self._step = ""
        self._exit_code: Optional[int] = None
        self._cpu, self._rss = 0.0, 0
        self._ports_retried = False
        self._abandoned = False
        self._gone = asyncio.get_running_loop().create_future()

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.exit_code is None

    def report(self) -> Report:
        """Return the whole state."""
        return Report(
            start=self.start,
            phase=self.phase,
            pid=self._process.pid if self._process is not None else None,
            exit_code=self._exit_code,
            step=self._step,
            reason=self._reason,
            log=self._tail.lines() if self.phase == "exited" else [],
            warnings=self._warnings,
            execution_state=self.execution_state,
            cpu=self._cpu,
            rss=self._rss,
            welcome=self._reader.welcome if self._reader is not None else "",
        )

    def adopt(self, order: Dict[str, Any], program: orders.Program, spawned: spawn.Spawned) -> None:
        """Take charge of the process that was started for ``order``."""
        self._order = order
        self.connection = program.connection
        self._warnings = program.warnings
        self._process = Process(spawned, self._tail, self._process_exited)
        self._tasks.append(asyncio.get_running_loop().create_task(self._subscribe(program.connection)))
        self._process.reap()

    def fail(self, step: str, reason: str) -> None:
        """It could not even be started."""
        self._over(step, reason, 127)

    def reap(self) -> None:
        """Look whether the process has exited; call after SIGCHLD."""
        if self._process is not None:
            self._process.reap()

    def signal(self, signum: int) -> None:
        """Signal the kernel's process group."""
        if self._process is not None:
            self._process.signal(signum)

    def measure(self) -> None:
        """Read usage anew."""
        if self.alive and self._process is not None:
            self._cpu, self._rss = self._process.usage()

    async def stop(self, grace: float) -> None:
        """End the process: SIGTERM, and SIGKILL after ``grace`` seconds."""
        for signum, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, LAST_OUTPUT_TIMEOUT * 2)):
            if self._gone.done():
                break
            self.signal(signum)
            await asyncio.wait({self._gone}, timeout=wait)
        self.abandon()

    def abandon(self) -> None:
        """Care no more: a process that still runs is killed."""
        self._abandoned = True
        self.signal(signal.SIGKILL)
        for task in self._tasks:
            task.cancel()
        if self._reader is not None:
            self._reader.close()
        if self._process is not None:
            self._process.close()

    async def _subscribe(self, connection: Dict[str, Any]) -> None:
        self._reader = reader = await listen(connection, self._outbox)
        await asyncio.wait({reader.subscribed, reader.over}, return_when=asyncio.FIRST_COMPLETED)
        if reader.subscribed.done() and reader.may_welcome:
            # Who asks home for the kernel shall have its welcome first, as from the kernel itself.
            await asyncio.wait(
                {reader.greeted, reader.over}, timeout=WELCOME_TIMEOUT, return_when=asyncio.FIRST_COMPLETED
            )
        if reader.subscribed.done() and self.alive:
            self.phase = "ready"
            self._changed()
            await asyncio.wait({reader.over})
        if not reader.problem:
            await asyncio.wait({self._gone}, timeout=LINGER)
        if self.alive and not self._gone.done():
            problem = "lost the kernel's iopub socket (%s)" % (reader.problem or "closed")
            self._warnings = [*self._warnings, problem]
            self.signal(signal.SIGKILL)

    def _process_exited(self, process: Process) -> None:
        if process is self._process and not self._abandoned:
            self._tasks.append(asyncio.get_running_loop().create_task(self._after_exit(process)))

    async def _after_exit(self, process: Process) -> None:
        assert process.exit_code is not None
        if self._reader is not None:
            await asyncio.wait({self._reader.over}, timeout=LAST_OUTPUT_TIMEOUT)
        elif self._try_other_ports():
            return
        self._over("exit", exit_reason(process.exit_code), process.exit_code)

    def _try_other_ports(self) -> bool:
        """Between our choice of a port and the kernel's bind somebody else may take it: once more."""
        taken = any(PORT_TAKEN in line.lower() for line in self._tail.lines())
        if self._ports_retried or self._order.get("transport") != "tcp" or not taken:
            return False
        self._ports_retried = True
        for task in self._tasks[:-1]:
            task.cancel()
        if self._process is not None:
            self._process.close()
        try:
            program = orders.prepare(self._order, self._directory)
            self.adopt(self._order, program, spawn.spawn(program.argv, program.env, program.cwd))
        except (OSError, ValueError, spawn.SpawnError) as error:
            self.fail("exec", str(error))
        return True

    def _over(self, step: str, reason: str, exit_code: int) -> None:
        self.phase = "exited"
        self._step, self._reason, self._exit_code = step, reason, exit_code
        self.execution_state = "dead"
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        if self.start > 1:
            shutil.rmtree(self._directory, ignore_errors=True)
        if not self._gone.done():
            self._gone.set_result(None)
        self._changed()
