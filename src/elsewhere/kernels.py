"""One kernel as its home holds it: launched, restarted in place, signalled, ended."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from typing import Any

from .activity import Activity
from .backend import Mark, Order
from .changes import Changes
from .control import ask
from .doors import Doors
from .errors import CoreClosed, KernelGone, LaunchFailed, NeverSubmitted
from .front_ends import FrontEnds
from .home import Home
from .job import Job
from .launch import plan
from .line import Admission, Line
from .parcel import Graces, Signing, SpoolLimits, order_fields, pack
from .records import KernelRecord
from .roster import Entry, Roster, Stage
from .settings import LaunchSettings, Resolved
from .standing import Standing
from .switchboard import digest
from .wish import Connection, Wish

ENDED_BEFORE = "the kernel was ended before its job was submitted"

GONE_TIMEOUT = 10.0
"""Seconds to wait for what was cancelled to be gone; after that the roster goes on by itself."""


class Kernel:
    """All methods belong to the home's loop; ``poll``, ``reason``, ``standing``, ``steps`` to any thread.

    ``job_lost``: it is over because its job is, so a restart would have to queue anew. ``last_start``:
    set it when no start will follow, and the job ends as soon as the kernel has exited. ``steps``: when
    the last start was asked, submitted, running, agent home, kernel ready (the first and the last of
    these in a job that was there), by the wall's clock; one that was taken up begins with that.
    ``changes``: whatever of it changes.
    """

    def __init__(self, home: Home, kernel_id: str) -> None:
        self.kernel_id = kernel_id
        self.changes = Changes()
        self.steps: dict[str, float] = {}
        self.launch_number = 0
        self.start_number = 0
        self.job_lost = False
        self.last_start = False
        self.warnings: tuple[str, ...] = ()
        self._home = home
        self._signing = Signing(secrets.token_hex(32))
        self._job: Job | None = None
        self._resolved: Resolved | None = None
        self._activity = Activity()
        self._last_standing: Standing | None = None
        self._doors = Doors(home.rundir.path, home.pipes)
        self._exit: tuple[int, str] | None = None
        self._attempt = 0
        self._waits_for = ""
        self._ending: asyncio.Future[None] | None = None
        self._wanted = True
        self.front_ends = FrontEnds()

    # ---- read from any thread

    def poll(self) -> int | None:
        """Return None while it runs or starts, else its exit code. Touches memory only."""
        return self._exit[0] if self._exit is not None else None

    @property
    def reason(self) -> str:
        """Why it is over, or an empty string."""
        return self._exit[1] if self._exit is not None else ""

    @property
    def standing(self) -> Standing:
        """Where it stands; what it was when its job is over."""
        job, last = self._job, self._last_standing
        if job is None and last is not None:
            return last
        resolved = self._resolved
        return Standing.of(
            job,
            self._exit if job is not None else None,
            cluster=resolved.cluster if resolved is not None else "",
            backend=resolved.backend_name if resolved is not None else "",
            launch=self.launch_number,
            start=self.start_number,
            steps=self.steps,
            waits_for=self._waits_for,
        )

    @property
    def status(self) -> str:
        """In a few words where it stands: for a person who waits."""
        return self.standing.status

    @property
    def active_at(self) -> float:
        """When it was last in use (the wall's clock), as its agent tells; 0 if that is not known."""
        return self._activity.at

    @property
    def connected(self) -> bool:
        """Whether its agent has a connection to us now."""
        return self.standing.connected

    @property
    def where(self) -> tuple[str | None, str | None]:
        """The host and the job's id, as far as they are known."""
        standing = self.standing
        return standing.host, standing.job_id

    # ---- start

    async def start(self, wish: Wish) -> Connection:
        """Start the kernel: in its job if there is one, else in a new one. Returns when it listens.

        Raises LaunchFailed, SettingsError, and what the backend raises; KernelGone when it is ended
        meanwhile; nothing is left behind then. A later call supersedes one that still waits.
        """
        self._attempt += 1
        attempt = self._attempt
        self.changes.notify()
        self.last_start = False
        try:
            if self._job is not None and not self._job.line.over:
                await self._start_in_place(self._job, wish)
            else:
                await self._start_anew(wish, attempt)
        except BaseException:
            if attempt == self._attempt:
                await self.end()
            raise
        return self._doors.connection(self._signing)

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

    async def _start_anew(self, wish: Wish, attempt: int) -> None:
        self._wanted = True
        await asyncio.shield(self._begin_to_end())  # but it is not struck out, for it goes on
        self._check_wanted()
        self._resolved = wish.resolved
        self._last_standing = None
        self.steps.clear()
        self.launch_number += 1
        self.start_number = 1
        self.job_lost = False
        self._step("asked")
        starts = self._home.starts(wish.resolved)
        if starts.at_once is not None:
            self._waits_for = f"waits for its turn to start (starts_at_once is {starts.at_once})"
        async with starts.turn(lambda: self._wanted and attempt == self._attempt, self.changes):
            if attempt != self._attempt:
                raise LaunchFailed("submit", "another start has taken the place of this one")
            self._waits_for = ""
            self._check_wanted()
            async with self._home.turns:  # hundreds of them at once leave turns of the loop to others
                job = await self._submit(wish)
            self._check_wanted()
            await self._until_ready(job)

    async def _submit(self, wish: Wish) -> Job:
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
        line = self._home.expect(mark, Admission(digest(token)))
        try:
            await self._lead_to(line)
            await self._home.records.launching(self._record(wish, digest(token)))
            _check_limit(roster, resolved)
            self._check_wanted()
            entry = await roster.submit(launch, request, parcel, queue_timeout=resolved.launch.queue_timeout)
        except BaseException as error:
            self._home.switchboard.forget(line, "it was never submitted")
            if not self._home.leaves_kernels:  # else the next life of this home submits it
                await self._home.records.ended(self.kernel_id)
            if isinstance(error, OSError) and self._home.leaves_kernels:  # which took the doors' directory
                raise CoreClosed("home was closed before the job was submitted") from error
            if isinstance(error, OSError) and not self._wanted:  # so did the end
                raise LaunchFailed("submit", ENDED_BEFORE) from error
            raise
        return self._take(entry, line, roster, resolved)

    def _check_wanted(self) -> None:
        """Who was ended while it was not launched yet is not launched."""
        if not self._wanted:
            raise LaunchFailed("submit", ENDED_BEFORE)

    def _take(self, entry: Entry, line: Line, roster: Roster[Any, Any], resolved: Resolved) -> Job:
        job = self._job = Job.followed(entry, line, roster, resolved.launch)
        self._exit = None
        line.changes.listener = self._line_changed
        return job

    async def resume(self, record: KernelRecord, wish: Wish) -> Connection:
        """Take up a kernel that an earlier life of this home launched: its agent will call.

        ``taken_up`` tells when it does. ``wish`` is what was asked then.
        """
        self._resolved = wish.resolved
        self.launch_number, self.start_number = record.launch, record.start
        self._step("taken up")
        self._signing = Signing(record.key, record.signature_scheme)
        mark = Mark(self._home.home_id, self.kernel_id, record.launch)
        roster = self._home.roster(wish.resolved)
        line = self._home.expect(mark, Admission(record.token_hash, record.secret_hash))
        line.open_from = record.start
        await self._lead_to(line)
        self._take(await roster.adopt(mark), line, roster, wish.resolved)
        return self._doors.connection(self._signing)

    async def taken_up(self, wish: Wish) -> None:
        """Wait until a resumed kernel listens, or has exited, which ``poll`` tells.

        Raises NeverSubmitted when home died before the submit, so that it may be started anew;
        LaunchFailed when its job is over or a start that was under way fails.
        """
        job = self._job
        if job is None:
            return
        ordered = False

        async def taken_up() -> bool:
            nonlocal ordered
            self._check_not_ended(job)
            if job.was_never_submitted:
                raise NeverSubmitted("the gateway died before the launch was submitted")
            if job.entry.phase is Stage.ENDED:
                raise await job.failure()
            report = job.line.report
            if report is not None and report.start < self.start_number and not ordered:
                ordered = True
                self._order(job, wish, self._planned(job, wish))
            return report is not None and report.start == self.start_number and report.phase != "starting"

        def starts() -> bool:  # else it may be a kernel that runs, whose agent is out of reach
            return job.line.report is not None or not job.line.admission.secret_hash

        await job.until(taken_up, self._home.address.addresses, counts=starts)

    async def _start_in_place(self, job: Job, wish: Wish) -> None:
        self._resolved = wish.resolved
        self.steps.clear()
        self._step("asked")
        order = self._planned(job, wish)
        await self._home.records.starting(self.kernel_id, self.start_number + 1, dict(wish.start))
        self.start_number += 1
        self._exit = None
        self._order(job, wish, order)
        self._doors.publish()
        await self._until_ready(job)

    def _planned(self, job: Job, wish: Wish) -> Order:
        mark = job.entry.mark
        return plan(mark, wish.kernel_name, wish.spec, wish.resolved, wish.start, wish.host).order

    def _order(self, job: Job, wish: Wish, order: Order) -> None:
        job.line.start(order_fields(self.start_number, order, wish.kernel_name, self._signing))

    async def _until_ready(self, job: Job) -> None:
        await job.until(lambda: self._is_ready(job), self._home.address.addresses)

    async def _is_ready(self, job: Job) -> bool:
        self._check_not_ended(job)
        if job.entry.phase is Stage.ENDED:
            raise await job.failure()
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

    def _check_not_ended(self, job: Job) -> None:
        if self._job is not job:
            raise LaunchFailed("kernel", "the kernel was ended while it was starting")

    # ---- while it runs

    async def log(self, lines: int) -> tuple[str, ...]:
        """Return the last lines that its job has printed, oldest first; none without a job."""
        return await self._job.log(lines) if self._job is not None else ()

    async def let_in(self) -> None:
        """Have local clients find their sockets, which a home of many kernels opens for who comes only."""
        await self._doors.open()

    async def ask_control(self, wire: bytes) -> None:
        """Send one message to its control channel, now or when it listens; return when it is answered.

        Returns too when the kernel is over before that. Raises KernelGone without a job.
        """
        if self._job is None:
            raise KernelGone("the kernel has not been launched")
        await ask(self._doors.connect("control"), wire)

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

    def leave(self) -> None:
        """Home is closing: let job and record go on, and hold nothing of it here any more."""
        self._doors.close()
        if self._job is not None:
            self._job.line.changes.listener = None
            self._job.follower.cancel()

    async def end(self) -> None:
        """End the job and forget it. Returns when it is gone, or GONE_TIMEOUT later.

        Who calls while it is ending waits for the same end, which no caller's cancellation stops.
        Does nothing once home leaves its kernels.
        """
        if self._home.leaves_kernels:
            return
        self._wanted = False
        self.changes.notify()
        await asyncio.shield(self._begin_to_end())

    def _begin_to_end(self) -> asyncio.Future[None]:
        if self._ending is None or self._ending.done():
            self._ending = asyncio.ensure_future(self._end())
        return self._ending

    async def _end(self) -> None:
        job = self._job
        if job is not None:
            self._last_standing = self.standing.over("the kernel was ended")
            self._job = None
            self.changes.notify()
        self._waits_for = ""
        self._doors.close()
        struck_out = False
        try:
            struck_out = await self._strike_out()
        finally:
            if job is not None:
                await self._end_job(job)
        if not struck_out:
            await self._strike_out()

    async def _strike_out(self) -> bool:
        if not self._wanted:
            await self._home.records.ended(self.kernel_id)
        return not self._wanted

    async def _end_job(self, job: Job) -> None:
        grace = job.settings.stop_grace
        try:
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
        if job is not None:
            self._take_in(job)
            self.changes.notify()

    def _take_in(self, job: Job) -> None:
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
        self._activity.note(report)
        if report is not None and report.phase == "exited" and report.start == self.start_number:
            self._over(report.exit_code or 0, report.reason)
            if self.last_start:
                self._begin_to_end()

    def _over(self, exit_code: int, reason: str) -> None:
        if self._exit is None:
            self._exit = (exit_code, reason)

    async def _lead_to(self, line: Line) -> None:
        self._doors.lead_to(line)
        if self._home.publishes or self._doors.wanted:
            await self._doors.open()
        self.front_ends.move_to(line)

    def _graces(self, settings: LaunchSettings) -> Graces:
        orphan = settings.orphan_grace
        return Graces(
            idle=settings.idle_grace,
            orphan=self._home.orphan_grace if orphan is None else orphan,
            stop=settings.stop_grace,
        )

    def _note_steps(self, job: Job) -> None:
        for name in ("submitted", "running"):
            if name in job.entry.steps:
                self._step(name, job.entry.steps[name].wall)
        if job.line.connected:
            self._step("agent home")

    def _step(self, name: str, at: float | None = None) -> None:
        if name not in self.steps:
            self.steps[name] = time.time() if at is None else at
            self.changes.notify()


def _check_limit(roster: Roster[Any, Any], resolved: Resolved) -> None:
    limit = resolved.limits.kernels
    if limit is not None and sum(entry.wanted for entry in roster.entries) >= limit:
        raise LaunchFailed(
            "submit",
            f"all {limit} kernels that cluster {resolved.cluster} may run for this home are running "
            "(limits.kernels); shut one down, or ask your site for more",
        )


def _swallow(future: asyncio.Future[None]) -> None:
    future.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _until_over(line: Line, timeout: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not line.over and loop.time() < deadline:
        await asyncio.wait({line.changes.next()}, timeout=deadline - loop.time())
