"""One kernel as its home holds it: launched, restarted in place, signalled, ended."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .backend import Logs, Mark
from .endpoints import Endpoints
from .errors import ElsewhereError, KernelGone, LaunchFailed
from .home import Home
from .launch import Host, Spec, plan
from .line import Admission, Line
from .mailbox import Letter, Mailbox
from .parcel import Graces, Signing, SpoolLimits, order_fields, pack
from .records import KernelRecord
from .roster import Entry, Roster, Stage
from .settings import LaunchSettings, Resolved
from .switchboard import digest

LOG_LINES = 20
GONE_TIMEOUT = 10.0
"""Seconds to wait for what was cancelled to be gone; after that the roster goes on by itself."""


@dataclass(frozen=True)
class Wish:
    """What somebody asked to be started. ``stanza`` is where ``resolved`` comes from."""

    kernel_name: str
    spec: Spec
    resolved: Resolved
    start: Mapping[str, object]
    host: Host
    owner: str = ""
    stanza: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Connection:
    """How jupyter_client reaches the kernel here."""

    ip: str
    ports: Mapping[str, int]
    key: str
    signature_scheme: str


@dataclass(frozen=True)
class _Job:
    """One launch: what the manager says of it, and its line."""

    entry: Entry
    line: Line
    roster: Roster[Any, Any]
    settings: LaunchSettings
    follower: asyncio.Task[None]


class Kernel:
    """All methods belong to the home's loop; ``poll``, ``status``, ``reason``, ``steps`` to any thread.

    ``job_lost``: it is over because its job is, so a restart would have to queue anew. ``last_start``:
    set it when no start will follow, and the job ends as soon as the kernel has exited. ``steps``: when
    the last start was asked, submitted, running, agent home, kernel ready (the first and the last of
    these in a job that was there); times of the wall's clock.
    """

    def __init__(self, home: Home, kernel_id: str) -> None:
        self.kernel_id = kernel_id
        self.steps: dict[str, float] = {}
        self.launch_number = 0
        self.start_number = 0
        self.job_lost = False
        self.last_start = False
        self.warnings: tuple[str, ...] = ()
        self._home = home
        self._signing = Signing(secrets.token_hex(32))
        self._job: _Job | None = None
        self._line: Line | None = None
        self._endpoints: Endpoints | None = None
        self._exit: tuple[int, str] | None = None
        self._attempt = 0
        self._ending: asyncio.Future[None] | None = None
        self._mailboxes: dict[str, Mailbox] = {}

    # ---- read from any thread

    def poll(self) -> int | None:
        """Return None while it runs or starts, else its exit code. Touches memory only."""
        return self._exit[0] if self._exit is not None else None

    @property
    def reason(self) -> str:
        """Why it is over, or an empty string."""
        return self._exit[1] if self._exit is not None else ""

    @property
    def status(self) -> str:
        """In a few words where it stands: for a person who waits."""
        job = self._job
        if job is None:
            return "not launched"
        report = job.line.report
        if self._exit is not None:
            return self.reason
        if report is not None and report.start == self.start_number:
            return "kernel " + report.phase
        if job.line.connected:
            return "kernel starting"
        if job.entry.phase is Stage.RUNNING:
            return "the job runs; waiting for its agent"
        return f"{job.entry.phase.name.lower()}" + (f": {job.entry.reason}" if job.entry.reason else "")

    @property
    def execution_state(self) -> str:
        """The kernel's last status as its agent reported it (``busy``, ``idle``), else ``unknown``."""
        job = self._job
        report = job.line.report if job is not None else None
        return report.execution_state if report is not None else "unknown"

    @property
    def connected(self) -> bool:
        """Whether its agent has a connection to us now."""
        job = self._job
        return job is not None and job.line.connected

    @property
    def where(self) -> tuple[str | None, str | None]:
        """The host and the job's id, as far as they are known."""
        job = self._job
        if job is None:
            return None, None
        return job.line.host or job.entry.host, job.entry.job_id

    # ---- start

    async def start(self, wish: Wish) -> Connection:
        """Start the kernel: in its job if there is one, else in a new one. Returns when it listens.

        Raises LaunchFailed, SettingsError, and what the backend raises; nothing is left behind then.
        A later call supersedes one that still waits.
        """
        self._attempt += 1
        attempt = self._attempt
        self.last_start = False
        try:
            if self._job is not None and not self._job.line.over:
                await self._start_in_place(self._job, wish)
            else:
                await self._start_anew(wish)
        except BaseException:
            if attempt == self._attempt:
                await self.end()
            raise
        return self._connection()

    def _connection(self) -> Connection:
        assert self._endpoints is not None
        return Connection(self._endpoints.ip, self._endpoints.ports, self._signing.key, self._signing.scheme)

    def _record(self, wish: Wish, token_hash: str) -> KernelRecord:
        return KernelRecord(
            kernel_id=self.kernel_id,
            kernel_name=wish.kernel_name,
            owner=wish.owner,
            launch=self.launch_number,
            start=self.start_number,
            stanza=wish.stanza,
            asked=dict(wish.start),
            key=self._signing.key,
            signature_scheme=self._signing.scheme,
            token_hash=token_hash,
        )

    async def _start_anew(self, wish: Wish) -> None:
        await self.end()
        self.steps.clear()
        self._step("asked")
        self.launch_number += 1
        self.start_number = 1
        self.job_lost = False
        resolved = wish.resolved
        mark = Mark(self._home.home_id, self.kernel_id, self.launch_number)
        launch = plan(mark, wish.kernel_name, wish.spec, resolved, wish.start, wish.host)
        roster = self._home.roster(resolved)
        token = secrets.token_urlsafe(32)
        parcel = pack(
            mark,
            self._home.address,
            token,
            order_fields(self.start_number, launch.order, launch.kernel_name, self._signing),
            self._graces(resolved.launch),
            SpoolLimits(resolved.launch.spool_memory, resolved.launch.spool_disk),
        )
        request = roster.backend.render(launch)
        line = self._expect(mark, Admission(digest(token)))
        try:
            await self._open_endpoints(line)
            await self._home.records.launching(self._record(wish, digest(token)))
            _check_limit(roster, resolved)
            entry = await roster.submit(launch, request, parcel, queue_timeout=resolved.launch.queue_timeout)
        except BaseException:
            self._home.switchboard.forget(line, "it was never submitted")
            await self._home.records.ended(self.kernel_id)
            raise
        await self._until_ready(self._take(entry, line, roster, resolved))

    def _take(self, entry: Entry, line: Line, roster: Roster[Any, Any], resolved: Resolved) -> _Job:
        follower = asyncio.get_running_loop().create_task(_follow(entry, line))
        job = self._job = _Job(entry, line, roster, resolved.launch, follower)
        self._exit = None
        line.changes.listener = self._line_changed
        return job

    async def resume(self, record: KernelRecord, resolved: Resolved) -> Connection:
        """Take up a kernel that an earlier life of this home launched: its agent will call."""
        self.launch_number, self.start_number = record.launch, record.start
        self._signing = Signing(record.key, record.signature_scheme)
        mark = Mark(self._home.home_id, self.kernel_id, record.launch)
        roster = self._home.roster(resolved)
        line = self._expect(mark, Admission(record.token_hash, record.secret_hash))
        line.open_from = record.start
        await self._open_endpoints(line)
        self._take(await roster.adopt(mark), line, roster, resolved)
        return self._connection()

    async def _start_in_place(self, job: _Job, wish: Wish) -> None:
        self.steps.clear()
        self._step("asked")
        mark = job.entry.mark
        launch = plan(mark, wish.kernel_name, wish.spec, wish.resolved, wish.start, wish.host)
        await self._home.records.starting(self.kernel_id, self.start_number + 1, dict(wish.start))
        self.start_number += 1
        self._exit = None
        job.line.start(order_fields(self.start_number, launch.order, launch.kernel_name, self._signing))
        if self._endpoints is not None:
            self._endpoints.publish()
        await self._until_ready(job)

    async def _until_ready(self, job: _Job) -> None:
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        while True:
            change = job.line.changes.next()
            if await self._is_ready(job):
                change.cancel()
                return
            if deadline is None and job.entry.phase is Stage.RUNNING:
                deadline = loop.time() + job.settings.start_timeout
            timeout = None if deadline is None else deadline - loop.time()
            if timeout is not None and timeout <= 0:
                change.cancel()
                raise await self._too_slow(job)
            await asyncio.wait({change}, timeout=timeout)

    async def _is_ready(self, job: _Job) -> bool:
        if job.entry.phase is Stage.ENDED:
            raise await self._job_failure(job)
        report = job.line.report
        if report is None or report.start != self.start_number:
            return False
        if report.phase == "ready":
            self._step("kernel ready")
            self.warnings = tuple(report.warnings)
            return True
        if report.phase == "exited":
            step = "exec" if report.step == "exec" else "kernel"
            raise LaunchFailed(step, report.reason, report.log)
        return False

    async def _job_failure(self, job: _Job) -> LaunchFailed:
        entry = job.entry
        if entry.failure is not None:
            return LaunchFailed(entry.failure.step, entry.failure.reason, await self._log(job))
        ran = "running" in entry.steps or entry.exit_code is not None
        step = "agent" if ran else "queue"
        reason = entry.reason or "the job ended"
        return LaunchFailed(step, reason, await self._log(job))

    async def _too_slow(self, job: _Job) -> LaunchFailed:
        seconds = f"{job.settings.start_timeout:g} s"
        if job.line.connected:
            reason = f"the kernel does not listen {seconds} after its job began to run (start_timeout)"
            return LaunchFailed("kernel", reason, await self._log(job))
        reason = (
            f"the agent did not call home within {seconds} of its job's start (start_timeout); "
            f"it dials {', '.join(self._home.address.addresses)}"
        )
        return LaunchFailed("agent", reason, await self._log(job))

    async def _log(self, job: _Job) -> tuple[str, ...]:
        report = job.line.report
        if report is not None and report.log:
            return tuple(report.log)
        backend = job.roster.backend
        if not isinstance(backend, Logs) or job.entry.job_id is None:
            return ()
        try:
            return tuple(await backend.tail(job.entry.job_id, LOG_LINES))
        except ElsewhereError as error:
            return (f"(the log cannot be read: {error})",)

    def _expect(self, mark: Mark, admission: Admission) -> Line:
        return self._home.switchboard.expect(mark, admission, publishes=self._home.publishes)

    # ---- front ends

    async def open_mailbox(
        self, name: str, deliver: Callable[[Letter], None], received: Callable[[int], int]
    ) -> Mailbox:
        """Have letters delivered to a front end, in place of an older mailbox of that name.

        ``received`` tells the last number that the front end has of a launch. The kernel need not have
        been launched yet.
        """
        self._close_mailbox(name, for_good=False)
        box = Mailbox(name, deliver, self.launch_number, received(self.launch_number))
        self._mailboxes[name] = box
        if self._line is not None and not self._line.over:
            self._line.add_mailbox(box)
        return box

    def close_mailbox(self, box: Mailbox, *, for_good: bool) -> None:
        """The front end has gone: its letters are kept for it by the agent, unless it is for good."""
        if self._mailboxes.get(box.name) is box:
            self._close_mailbox(box.name, for_good=for_good)

    def _close_mailbox(self, name: str, *, for_good: bool) -> None:
        box = self._mailboxes.pop(name, None)
        if box is not None:
            if self._line is not None:
                self._line.remove_mailbox(box)
            box.close(for_good=for_good)

    # ---- while it runs

    async def signal(self, signum: int) -> None:
        """Signal the kernel, now or when its agent is back. Raises KernelGone."""
        if self._job is None:
            raise KernelGone("the kernel has not been launched")
        await self._job.line.command("signal", signum=int(signum))

    async def exited(self) -> int:
        """Wait until it is over and return its exit code."""
        while self._exit is None:
            if self._job is None:
                return 0
            await self._job.line.changes.next()
        return self._exit[0]

    # ---- end

    async def end(self) -> None:
        """End the job and forget it. Returns when it is gone, or GONE_TIMEOUT later.

        Who calls while it is ending waits for the same end, which no caller's cancellation stops.
        """
        await asyncio.shield(self._begin_to_end())

    def _begin_to_end(self) -> asyncio.Future[None]:
        if self._ending is None or self._ending.done():
            self._ending = asyncio.ensure_future(self._end())
        return self._ending

    async def _end(self) -> None:
        job, self._job = self._job, None
        if self._endpoints is not None:
            self._endpoints.close()
        if job is None:
            return
        grace = job.settings.stop_grace
        try:
            await self._home.records.ended(self.kernel_id)
            if job.line.connected:
                _swallow(job.line.command("end", grace=grace))
                await _until_over(job.line, grace + 1)
            await job.roster.release(job.entry, grace=grace)
            await job.entry.gone(timeout=GONE_TIMEOUT)
        finally:
            job.line.changes.listener = None
            self._home.switchboard.forget(job.line, "the kernel was ended")
            job.follower.cancel()
            if self._exit is None:
                self._exit = (-signal.SIGTERM, "the kernel was ended")

    def _line_changed(self) -> None:
        job = self._job
        if job is None:
            return
        line, entry = job.line, job.entry
        report = line.report
        if line.over:
            if entry.phase is not Stage.ENDED:
                entry.agent_exited(line.over)
            self.job_lost = True
            self._over(entry.exit_code or -signal.SIGKILL, line.over)
        elif entry.agent_connected != line.connected:
            entry.agent_connected = line.connected
        if self.start_number == 1:
            self._note_steps(job)
        if report is not None and report.phase == "exited" and report.start == self.start_number:
            self._over(report.exit_code or 0, report.reason)
            if self.last_start:
                self._begin_to_end()

    def _over(self, exit_code: int, reason: str) -> None:
        if self._exit is None:
            self._exit = (exit_code, reason)

    async def _open_endpoints(self, line: Line) -> None:
        """At the same paths for every launch: clients of a job that was lost reconnect to the next."""
        self._line = line
        if self._endpoints is None:
            self._endpoints = Endpoints(self._home.rundir.path, self._connect)
        try:
            await self._endpoints.open()
        except BaseException:
            self._endpoints.close()
            raise
        line.sockets = {"transport": "ipc", "ip": self._endpoints.ip, **self._endpoints.ports}
        for box in self._mailboxes.values():
            box.new_job(self.launch_number)
            line.add_mailbox(box)

    def _connect(self, channel: str) -> asyncio.BaseProtocol:
        assert self._line is not None
        return self._line.connect(channel)

    def _graces(self, settings: LaunchSettings) -> Graces:
        orphan = settings.orphan_grace
        return Graces(
            idle=settings.idle_grace,
            orphan=self._home.orphan_grace if orphan is None else orphan,
            stop=settings.stop_grace,
        )

    def _note_steps(self, job: _Job) -> None:
        for name in ("submitted", "running"):
            if name in job.entry.steps:
                self._step(name, job.entry.steps[name].wall)
        if job.line.connected:
            self._step("agent home")

    def _step(self, name: str, at: float | None = None) -> None:
        self.steps.setdefault(name, time.time() if at is None else at)


def _check_limit(roster: Roster[Any, Any], resolved: Resolved) -> None:
    limit = resolved.limits.kernels
    if limit is not None and sum(entry.wanted for entry in roster.entries) >= limit:
        raise LaunchFailed(
            "submit",
            f"all {limit} kernels that cluster {resolved.cluster} may run for this home are running "
            "(limits.kernels); shut one down, or ask your site for more",
        )


async def _follow(entry: Entry, line: Line) -> None:
    """What the manager says is a change of the line too; the job's end is the line's end."""
    async for _ in entry.changes():
        line.changes.notify()
    line.end(_death(entry, line))


def _death(entry: Entry, line: Line) -> str:
    reason = entry.reason or "the manager says no more"
    if line.report is None:
        return f"the job is over: {reason}"
    return f"the job is over, its agent died: {reason}"


def _swallow(future: asyncio.Future[None]) -> None:
    future.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _until_over(line: Line, timeout: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not line.over and loop.time() < deadline:
        await asyncio.wait({line.changes.next()}, timeout=deadline - loop.time())
