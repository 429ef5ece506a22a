"""The world around a roster: its user, its manager, the agents in the jobs, and a home that dies.

It plays the switchboard too: the first agent that calls with a launch's token is admitted, another is
refused and its job ends itself. What breaks a promise is noted in ``broken``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from machine_evidence import Absence, Evidence, WitnessedBackend, now
from roster_kit import HOME, PARCEL, MemoryRoster, launch_of

from elsewhere.backend import JobId, Mark, Phase
from elsewhere.errors import CoreClosed
from elsewhere.roster import Entry, Roster, Stage
from elsewhere.roster.driver import SURE_AT_MOST
from elsewhere.testing.faults import lift_all
from elsewhere.testing.memory import MemoryConfig, MemoryJob, MemoryManager

LOG = logging.getLogger("elsewhere.roster")

QUIET = 240.0
"""Seconds without faults until all must be in order, on top of ``SURE_AT_MOST`` where changes are pushed."""

LINK_TORN_AFTER = 15.0
"""Seconds after which the switchboard notices at the latest that an agent is no more."""

Holder = tuple[JobId, int]
"""Who may hold a token: the agent of one job, in one of its runs."""


class Manager(MemoryManager):
    """A manager in memory that tells the world what it does to jobs."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def wait(self, job: MemoryJob, reason: str) -> None:
        self._world.process_ends(job)
        super().wait(job, reason)

    def end(self, job: MemoryJob, reason: str | None = None, exit_code: int | None = None) -> None:
        if job.live:
            self._world.process_ends(job)
        super().end(job, reason, exit_code)

    async def cancel(self, job_id: JobId, grace: float) -> None:
        self._world.check_cancel(self.jobs[job_id])
        await super().cancel(job_id, grace)


class LoudLog(logging.Handler):
    """Notes what the roster calls a fault in the backend while the backend has none."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if self._world.manager.fault is None:
            error = record.exc_info[1] if record.exc_info else None
            self._world.breaks(f"logged: {record.getMessage()} {error!r}")


class World:
    """Begins without a home; ``open_home`` first, ``close`` at the end.

    ``gateway``: whether its home is one, with a ledger: it may die and return, and cancels its orphans.
    """

    backend_class = WitnessedBackend

    def __init__(self, *, gateway: bool, push: bool, interval: float) -> None:
        self.gateway = gateway
        self.config = MemoryConfig(survey_interval=interval, push=push)
        self.manager: MemoryManager = Manager(self)
        self.roster: MemoryRoster | None = None
        self.evidence = Evidence(0.0)
        self.broken: list[str] = []
        self.launches: Counter[str] = Counter()
        self.wanted: set[Mark] = set()
        self.entries: dict[Mark, Entry] = {}
        self.admitted: dict[Mark, Holder] = {}
        self.connected: dict[Mark, Holder] = {}
        self.runs: Counter[JobId] = Counter()
        self.link_torn_after = 0.0
        self._witnesses: list[asyncio.Task[None]] = []
        self._log = LoudLog(self)

    def breaks(self, promise: str) -> None:
        self.broken.append(f"{now():.1f} s: {promise}")

    # Home.

    async def open_home(self) -> None:
        """Begin, or return from the dead, and take up what the ledger holds."""
        self.evidence = Evidence(settle=6.0)
        backend = self.backend_class(HOME, self.config, self.manager, self.evidence, self._check_submit)
        grace = 30.0 if self.gateway else None
        self.roster = Roster(backend, submits_at_once=2, settle=6.0, orphan_grace=grace)
        LOG.addHandler(self._log)
        self.roster.start()
        for mark in sorted(self.wanted, key=str):
            self.evidence.of(mark).unseen = Absence(now())
            self._keep(await self.roster.adopt(mark))

    async def close_home(self) -> None:
        """End the roster; jobs go on, links are torn. No task of it is left."""
        assert self.roster is not None
        roster, self.roster = self.roster, None
        self.entries.clear()
        self.connected.clear()
        await roster.aclose()
        await asyncio.gather(*self._witnesses)
        self._witnesses.clear()
        self.stop_listening()
        await pump()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            self.breaks(f"tasks are left: {left}")

    def stop_listening(self) -> None:
        """Hear no more of what the roster logs."""
        LOG.removeHandler(self._log)

    # The user.

    async def start(self, kernel_id: str, queue_timeout: float | None = None) -> Entry:
        """Start a kernel, or start it anew."""
        assert self.roster is not None
        for mark in list(self.wanted):
            if mark.kernel_id == kernel_id:
                self.wanted.discard(mark)
        self.launches[kernel_id] += 1
        launch = launch_of(Mark(HOME, kernel_id, self.launches[kernel_id]))
        self.wanted.add(launch.mark)
        request = self.roster.backend.render(launch)
        entry = await self.roster.submit(launch, request, PARCEL, queue_timeout=queue_timeout)
        self._keep(entry)
        return entry

    async def release(self, entry: Entry, grace: float) -> None:
        assert self.roster is not None
        self.wanted.discard(entry.mark)
        await self.roster.release(entry, grace=grace)

    def _keep(self, entry: Entry) -> None:
        self.entries[entry.mark] = entry
        self._witnesses.append(asyncio.create_task(self._witness(entry)))

    # The agents, and who answers them.

    def call(self, job: MemoryJob) -> None:
        """The agent of a job that runs calls home; who is refused ends its job."""
        if self.roster is None or job.phase is not Phase.RUNNING:
            return
        mark, holder = job.mark, (job.job_id, self.runs[job.job_id])
        entry = self.entries.get(mark)
        expected = mark in self.wanted and entry is not None and entry.phase is not Stage.ENDED
        if not expected or self.admitted.setdefault(mark, holder) != holder:
            self.manager.end(job, "home refused this job", 1)
            return
        assert entry is not None
        self.connected[mark] = holder
        self._link_changes(entry, True)

    def all_call(self) -> None:
        """The agents of all jobs that run call home, the oldest first."""
        for job in self._ours():
            self.call(job)

    def hang_up(self, mark: Mark) -> None:
        """The link of a connected agent is torn."""
        if self.connected.pop(mark, None) and (entry := self.entries.get(mark)):
            self._link_changes(entry, False)

    def report_exit(self, mark: Mark) -> MemoryJob:
        """A connected agent reports its end; return its job, which is to end soon."""
        job_id, _ = self.connected.pop(mark)
        self.wanted.discard(mark)
        self.evidence.link_changed(mark)
        self.entries[mark].agent_exited("the kernel is over", 3)
        return self.manager.jobs[job_id]

    def process_ends(self, job: MemoryJob) -> None:
        """The agent of a job is no more; the switchboard notices when the connection breaks."""
        holder = (job.job_id, self.runs[job.job_id])
        self.runs[job.job_id] += 1
        if self.connected.get(job.mark) != holder:
            return
        if self.link_torn_after:
            loop = asyncio.get_running_loop()
            loop.call_later(self.link_torn_after, self._notice, job.mark, holder)
        else:
            self._notice(job.mark, holder)

    def _notice(self, mark: Mark, holder: Holder) -> None:
        if self.connected.get(mark) == holder:
            self.hang_up(mark)

    def _link_changes(self, entry: Entry, connected: bool) -> None:
        if entry.agent_connected != connected:
            self.evidence.link_changed(entry.mark)
            entry.agent_connected = connected

    # The promises.

    async def _witness(self, entry: Entry) -> None:
        """No live kernel is ever declared dead."""
        try:
            await entry.until(Stage.ENDED)
        except CoreClosed:
            return
        mark = entry.mark
        if mark not in self.wanted:
            return
        self.wanted.discard(mark)
        live = self.manager.live(mark)
        if (holder := self.connected.get(mark)) and self.manager.jobs[holder[0]] in live:
            self.breaks(f"{entry} was declared dead ({entry.reason}) while its agent is connected")
        elif entry.failure is not None:  # it did not come up, which is for the manager or the user to say
            if "running" in entry.steps:
                self.breaks(f"{entry} was declared dead ({entry.reason}) although it ran")
        else:
            for job in live:
                if not self.evidence.believed_over(job):
                    self.breaks(f"{entry} was declared dead ({entry.reason}) while {job} lives")

    def _check_submit(self, mark: Mark) -> None:
        """No second kernel of our making: none is submitted where one may live."""
        if mark not in self.wanted or mark.launch < self.launches[mark.kernel_id]:
            self.breaks(f"{mark} was submitted although nobody wants it")
        for job in self.manager.live(mark):
            if not self.evidence.believed_over(job):
                self.breaks(f"{mark} was submitted again while {job} lives")

    def check_cancel(self, job: MemoryJob) -> None:
        """What is wanted, or another home's, is not cancelled."""
        if job.mark in self.wanted or job.mark.home_id != HOME:
            self.breaks(f"{job} was cancelled")

    async def check(self) -> None:
        """What holds at any moment, whatever the faults."""
        for mark in self.connected:
            entry = self.entries[mark]
            if mark in self.wanted and not (entry.phase is Stage.RUNNING and entry.wanted):
                self.breaks(f"{entry} is not shown to run although its agent is connected")
        assert self.broken == [], "\n".join(self.broken)

    async def come_to_rest(self) -> None:
        """Without faults, after a while, all is in order; once all agents called, each id has one kernel."""
        lift_all(self.manager)
        self.link_torn_after = min(self.link_torn_after, LINK_TORN_AFTER)
        if self.roster is None:
            await self.open_home()
        assert self.roster is not None
        eyes = await self.start("eyes")  # a provisioner alone looks only while it wants something
        await asyncio.sleep(QUIET + (SURE_AT_MOST if self.config.push else 0.0))
        unwanted = [job for job in self._ours() if job.mark not in self.wanted]
        if unwanted:
            self.breaks(f"unwanted jobs survive: {unwanted}")
        for mark in self.wanted:
            self._check_shown(self.entries[mark])
        kept = [entry for entry in self.roster.entries if entry.released]
        if kept:
            self.breaks(f"released, and not gone: {kept}")
        self.all_call()
        await asyncio.sleep(2 * LINK_TORN_AFTER)
        of = Counter(job.mark.kernel_id for job in self._ours() if job.phase is Phase.RUNNING)
        if of and max(of.values()) > 1:
            self.breaks(f"two kernels have one id: {of}")
        await self.release(eyes, 0.0)
        await eyes.gone()
        await self.check()

    def _ours(self) -> list[MemoryJob]:
        return [job for job in self.manager.live() if job.mark.home_id == HOME]

    def _check_shown(self, entry: Entry) -> None:
        live = self.manager.live(entry.mark)
        if not live:
            self.breaks(f"{entry} is shown although its job is over")
        elif len(live) == 1 and entry.phase is not _STAGES[live[0].phase]:
            self.breaks(f"{entry} is shown although its job is {live[0].phase}")


_STAGES = {Phase.QUEUED: Stage.QUEUED, Phase.RUNNING: Stage.RUNNING}


async def pump() -> None:
    """Let everything happen that happens now."""
    for _ in range(12):
        await asyncio.sleep(0)
