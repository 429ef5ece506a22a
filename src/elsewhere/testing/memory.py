"""A resource manager in memory, whose faults are scripted, and the backend for it.

It tells time by the running loop alone, so a test in virtual time is exact and takes no time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from itertools import count

from pydantic import Field

from elsewhere.backend import (
    Backend,
    ClusterConfig,
    JobId,
    Launch,
    Mark,
    Observation,
    Options,
    Parcel,
    Phase,
    Sighting,
)
from elsewhere.errors import BackendError, Rejected, Unreachable


class MemoryConfig(ClusterConfig):
    """How the backend watches its manager."""

    push: bool = Field(False, description="Be told of changes, after one survey, instead of asking.")


class MemoryOptions(Options):
    """Nothing but what every backend has."""


@dataclass(frozen=True)
class MemoryRequest:
    """What is submitted: the mark, and what a manager would run."""

    mark: Mark
    argv: tuple[str, ...]


@dataclass
class MemoryJob:
    """One job, as it really is, whatever the manager says of it."""

    job_id: JobId
    mark: Mark
    born: float
    phase: Phase = Phase.QUEUED
    host: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    died: float | None = None
    shown_from: float = 0.0
    forgotten: bool = False
    log: list[str] = field(default_factory=list)

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.phase is not Phase.ENDED

    def sighting(self) -> Sighting:
        """Return what an honest manager says of it now."""
        return Sighting(
            self.mark.kernel_id,
            self.mark.launch,
            self.job_id,
            self.phase,
            self.host,
            self.reason,
            self.exit_code,
        )


class MemoryManager:
    """Jobs in memory. Its methods are the levers of a test; its attributes are the faults.

    ``down``: nothing is answered or done. ``latency``: seconds that each answer takes; a survey tells
    how things were when it was asked. ``lag``: seconds until a new job is in the lists. ``amnesia``:
    seconds, after it was down, in which the lists are empty. ``runs_after``: seconds until a job
    runs; None leaves it queued. ``lose_answers``: so many submits are done, and not answered.
    ``lose_requests``: so many are neither. ``omit``: so many surveys show nothing. ``rejects``: what it
    says to each submit. ``halfway``: so many submits leave a job that does not run by itself, and fail
    with ``halfway_error``. ``ignores_cancels``: so many cancels are answered, and not done.
    ``forgets_ended``: ended jobs are not listed; an end is still a change that is told. ``says``: lies, by
    job. ``shows_others``: the jobs of other homes are listed too. ``fault``: what each call of the backend
    raises, for a backend with a bug. ``gives_ids``: whether submit returns the id.
    """

    def __init__(self) -> None:
        self.jobs: dict[JobId, MemoryJob] = {}
        self.latency = 0.0
        self.lag = 0.0
        self.amnesia = 0.0
        self.runs_after: float | None = 0.0
        self.lose_answers = 0
        self.lose_requests = 0
        self.omit = 0
        self.rejects: str | None = None
        self.halfway = 0
        self.halfway_error: BackendError = Unreachable("it broke off halfway")
        self.ignores_cancels = 0
        self.forgets_ended = False
        self.gives_ids = True
        self.says: dict[JobId, Sighting] = {}
        self.shows_others = False
        self.fault: Exception | None = None
        self.surveys = 0
        self.submits_now = 0
        self.submits_at_most = 0
        self.parcels: list[Parcel] = []
        self.cancels: list[tuple[float, JobId, float]] = []
        self.discards: list[JobId] = []
        self._down = False
        self._up_since = float("-inf")
        self._ids = count(1)
        self._changes: set[asyncio.Queue[MemoryJob]] = set()

    # Levers.

    @property
    def down(self) -> bool:
        """Whether it neither answers nor does anything; its jobs go on."""
        return self._down

    @down.setter
    def down(self, down: bool) -> None:
        if self._down and not down:
            self._up_since = _time()
            if self.amnesia:
                asyncio.get_running_loop().call_later(self.amnesia, self._tell_all)
        self._down = down

    def add(self, mark: Mark, phase: Phase = Phase.QUEUED) -> MemoryJob:
        """Have a job out of nowhere: somebody else's, an earlier life's, or the same one run twice."""
        job = self._take_in(mark)
        if phase is Phase.QUEUED and self.runs_after is not None:
            asyncio.get_running_loop().call_later(self.runs_after, self.run, job)
        if phase is Phase.RUNNING:
            self.run(job)
        elif phase is Phase.ENDED:
            self.end(job)
        return job

    def run(self, job: MemoryJob, host: str = "node1") -> None:
        """Let a queued job run."""
        if job.phase is Phase.QUEUED:
            job.phase, job.host, job.reason = Phase.RUNNING, host, None
            self._tell(job)

    def wait(self, job: MemoryJob, reason: str) -> None:
        """Say why a job waits; one that ran is queued again."""
        job.phase, job.reason = Phase.QUEUED, reason
        self._tell(job)

    def end(self, job: MemoryJob, reason: str | None = None, exit_code: int | None = None) -> None:
        """Let a job end."""
        if job.live:
            job.phase, job.reason, job.exit_code, job.died = Phase.ENDED, reason, exit_code, _time()
            self._tell(job)

    def forget(self, job: MemoryJob) -> None:
        """List a job no longer, whether it lives or not."""
        job.forgotten = True

    def remember(self, job: MemoryJob) -> None:
        """List a forgotten job again."""
        if job.forgotten:
            job.forgotten = False
            self._tell(job)

    def say(self, job: MemoryJob, lie: Sighting | None) -> None:
        """Tell this of a job, whatever becomes of it; None: the truth again."""
        if lie is not None:
            self.says[job.job_id] = lie
        else:
            self.says.pop(job.job_id, None)
        self._tell(job)

    def live(self, mark: Mark | None = None) -> list[MemoryJob]:
        """Return the jobs that really live, oldest first: all, or those with one mark."""
        return [job for job in self.jobs.values() if job.live and mark in (None, job.mark)]

    # What the backend asks.

    async def submit(self, request: MemoryRequest, parcel: Parcel) -> JobId:
        """Take a job in; the middle of the latency is where it is done."""
        self.submits_now += 1
        self.submits_at_most = max(self.submits_at_most, self.submits_now)
        try:
            await self._answer(self.latency / 2)
            if self.lose_requests > 0:
                self.lose_requests -= 1
                raise Unreachable("the request was lost")
            if self.rejects is not None:
                raise Rejected(self.rejects)
            if self.halfway > 0:
                self.halfway -= 1
                self._take_in(request.mark)
                raise self.halfway_error.with_traceback(None)
            job = self.add(request.mark)
            self.parcels.append(parcel)
            await self._answer(self.latency / 2)
            if self.lose_answers > 0:
                self.lose_answers -= 1
                raise Unreachable("the answer was lost")
            return job.job_id
        finally:
            self.submits_now -= 1

    async def survey(self, home_id: str) -> tuple[tuple[Mark, Sighting], ...]:
        """List the jobs of one home, as it sees them now, each with the mark that is stamped on it."""
        self.surveys += 1
        seen = self._list(home_id)
        await self._answer(self.latency)
        return seen

    async def cancel(self, job_id: JobId, grace: float) -> None:
        """End a job, at once; every call is noted in ``cancels``, with its time."""
        self.cancels.append((_time(), job_id, grace))
        await self._answer(self.latency)
        if self.ignores_cancels > 0:
            self.ignores_cancels -= 1
        elif job := self.jobs.get(job_id):
            self.end(job, "CANCELLED")

    async def changes(self, home_id: str) -> AsyncGenerator[tuple[Mark, Sighting]]:
        """Yield one home's jobs as they change, for as long as it is up; the marks as in ``survey``."""
        queue: asyncio.Queue[MemoryJob] = asyncio.Queue()
        self._changes.add(queue)
        try:
            while True:
                job = await queue.get()
                await self._answer(0.0)
                if self._shows(job, home_id):
                    yield job.mark, self._word(job)
        finally:
            self._changes.discard(queue)

    async def _answer(self, latency: float) -> None:
        if latency:
            await asyncio.sleep(latency)
        if self.fault is not None:
            raise self.fault.with_traceback(None)  # or it would grow with each time
        if self._down:
            raise Unreachable("the manager is down")

    def _take_in(self, mark: Mark) -> MemoryJob:
        job = MemoryJob(JobId(str(next(self._ids))), mark, _time(), shown_from=_time() + self.lag)
        self.jobs[job.job_id] = job
        if self.lag:
            asyncio.get_running_loop().call_at(job.shown_from, self._tell, job)
        self._tell(job)
        return job

    def _list(self, home_id: str) -> tuple[tuple[Mark, Sighting], ...]:
        now = _time()
        if self.omit > 0 and not self._down:
            self.omit -= 1
            return ()
        if now - self._up_since < self.amnesia:
            return ()
        return tuple(
            (job.mark, self._word(job))
            for job in self.jobs.values()
            if self._shows(job, home_id) and not (self.forgets_ended and not job.live)
        )

    def _shows(self, job: MemoryJob, home_id: str) -> bool:
        return (
            (job.mark.home_id == home_id or self.shows_others)
            and _time() >= job.shown_from
            and not job.forgotten
        )

    def _word(self, job: MemoryJob) -> Sighting:
        return self.says.get(job.job_id) or job.sighting()

    def _tell_all(self) -> None:
        for job in self.jobs.values():
            self._tell(job)

    def _tell(self, job: MemoryJob) -> None:
        for queue in self._changes:
            queue.put_nowait(job)


class MemoryBackend(Backend[MemoryOptions, MemoryRequest]):
    """The backend of a manager in memory; several homes may share one manager."""

    Config = MemoryConfig
    Options = MemoryOptions
    config: MemoryConfig

    def __init__(self, home_id: str, config: MemoryConfig, manager: MemoryManager | None = None) -> None:
        super().__init__(home_id, config)
        self.manager = manager or MemoryManager()

    def render(self, launch: Launch[MemoryOptions]) -> MemoryRequest:
        return MemoryRequest(launch.mark, launch.order.argv)

    async def submit(self, request: MemoryRequest, parcel: Parcel) -> JobId | None:
        job_id = await self.manager.submit(request, parcel)
        return job_id if self.manager.gives_ids else None

    async def survey(self) -> Observation:
        listed = await self.manager.survey(self.home_id)
        return Observation(
            tuple(sighting for mark, sighting in listed if mark.home_id == self.home_id), complete=True
        )

    async def cancel(self, job_id: JobId, *, grace: float) -> None:
        await self.manager.cancel(job_id, grace)

    async def watch(self) -> AsyncGenerator[Observation]:
        if not self.config.push:
            async for observation in super().watch():
                yield observation
            return
        yield await self.survey()
        async for mark, sighting in self.manager.changes(self.home_id):
            if mark.home_id == self.home_id:
                yield Observation((sighting,), complete=False)

    async def tail(self, job_id: JobId, lines: int) -> Sequence[str]:
        """Return the last lines that the job printed."""
        job = self.manager.jobs.get(job_id)
        return job.log[-lines:] if job and lines > 0 else []

    async def discard(self, job_id: JobId) -> None:
        """Drop the job's log; every call is noted in ``discards``."""
        self.manager.discards.append(job_id)
        if job := self.manager.jobs.get(job_id):
            job.log.clear()


def _time() -> float:
    return asyncio.get_running_loop().time()
