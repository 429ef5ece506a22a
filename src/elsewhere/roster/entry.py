"""One launch of one kernel, as the roster knows it: what is shown, and waiting for it to change."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import AsyncGenerator, Callable, Collection
from functools import partial
from typing import NamedTuple

from elsewhere.backend import JobId, Mark, Phase, Sighting
from elsewhere.errors import CoreClosed, LaunchFailed
from elsewhere.roster.reckoning import Absence, Instant, Job

NEVER_SEEN = "the manager does not know the job"
NO_ANSWER = "the manager did not answer the submit; watching whether the job appears"


class Stage(enum.IntEnum):
    """How far a launch has come. Ordered, so that ``ENDED`` satisfies who waits for ``RUNNING``."""

    SUBMITTING = 0
    QUEUED = 1
    RUNNING = 2
    ENDED = 3


class Submission(enum.Enum):
    """What became of handing the job over."""

    WAITING = "waiting for its turn"
    ASKED = "the manager has been asked and has not answered yet"
    ACCEPTED = "the manager said yes"
    UNKNOWN = "asked, and the answer is lost"
    NOT_DONE = "never asked, or the manager said no"


class Times(NamedTuple):
    """One moment on the loop's clock, for differences, and on the wall's, for people."""

    loop: float
    wall: float


class Entry:
    """One launch of one kernel, as the roster knows it.

    Everything may be read at any time and from any thread, without awaiting; what waits or is set
    belongs to the roster's loop. ``reason`` is the manager's own where it gave one. ``stale_since``
    is None while the manager answers, else the loop's time of its last answer.
    """

    def __init__(self, mark: Mark, now: Instant, agent_told: Callable[[Entry, bool], None]) -> None:
        self.mark = mark
        self.phase = Stage.SUBMITTING
        self.host: str | None = None
        self.job_id: JobId | None = None
        self.exit_code: int | None = None
        self.failure: LaunchFailed | None = None
        self.manager_says: str | None = None
        self.stale_since: float | None = None
        self.steps: dict[str, Times] = {}
        self.wanted = True
        # From here on: kept by the roster.
        self.submission = Submission.WAITING
        self.released = False
        self.grace: float | None = None
        self.closed = False
        self.place_in_line: Callable[[], int] | None = None
        self.jobs: dict[JobId, Job] = {}
        self.unseen: Absence | None = None
        self.agent_seen = False
        self._agent_connected = False
        self._reason: str | None = None
        self._agent_told = agent_told
        self._version = 0
        self._last_shown: tuple[object, ...] = ()
        self._waiters: set[asyncio.Future[None]] = set()
        self._step("asked", now)

    def __repr__(self) -> str:
        return f"<Entry {self.mark} {self.phase.name} job={self.job_id} wanted={self.wanted}>"

    # What anybody may read.

    @property
    def reason(self) -> str | None:
        """Why it is as it is, in the manager's words if there are any."""
        if self.place_in_line is not None and self.phase is not Stage.ENDED:
            ahead = self.place_in_line()
            return f"waiting for {ahead} other submit{'' if ahead == 1 else 's'}"
        return self._reason

    @property
    def is_gone(self) -> bool:
        """Whether it is unwanted and believed to have no job left, nor one that may yet appear."""
        return not (self.wanted or self.submitting or self.unseen or self.live_jobs)

    @property
    def submitting(self) -> bool:
        """Whether the job is still being handed over."""
        return self.submission in (Submission.WAITING, Submission.ASKED)

    @property
    def live_jobs(self) -> list[Job]:
        """The jobs with this mark that are not over; more than one if the manager ran it twice."""
        return [job for job in self.jobs.values() if job.live]

    # What a caller on the roster's loop may wait for.

    async def until(self, stage: Stage) -> Stage:
        """Return the stage once it is ``stage`` or later; ``CoreClosed`` if the roster is closed."""
        await self._wait(lambda: self.phase >= stage)
        return self.phase

    async def running(self) -> None:
        """Return once it runs; raise ``LaunchFailed`` with the reason if it ended instead."""
        if await self.until(Stage.RUNNING) is Stage.ENDED:
            step = "agent" if "running" in self.steps else "queue"
            raise LaunchFailed(self.failure.step if self.failure else step, self.reason or "")

    async def gone(self, timeout: float | None = None) -> bool:
        """Wait until it is unwanted and believed over; return False if that took too long."""
        return await self._wait(lambda: self.is_gone, timeout)

    async def changes(self) -> AsyncGenerator[Entry]:
        """Yield at once, then after each change, the end being the last; quick changes are merged."""
        while True:
            version = self._version
            yield self
            if self.phase is Stage.ENDED:
                return
            await self._wait(partial(self._changed_since, version))

    # What the switchboard tells: a nearer witness than the manager.

    @property
    def agent_connected(self) -> bool:
        """Whether its agent is connected. While it is, no word of the manager ends the entry."""
        return self._agent_connected

    @agent_connected.setter
    def agent_connected(self, connected: bool) -> None:
        if connected == self._agent_connected:
            return
        self._agent_connected = connected
        self.agent_seen = True
        self._agent_told(self, False)

    def agent_exited(self, reason: str, exit_code: int | None = None) -> None:
        """Believe the agent's exit report: it is final, and the job is unwanted from now on."""
        self._agent_connected = False
        self.agent_seen = True
        news = self.phase is not Stage.ENDED
        if news:
            self.end(reason, exit_code)
        self._agent_told(self, news)

    # What the roster tells.

    def saw(self, sighting: Sighting, now: Instant) -> None:
        """Believe a sighting of one of its jobs."""
        job = self.jobs.get(sighting.job_id)
        if job is None:
            job = self.jobs[sighting.job_id] = Job(sighting.job_id, now)
            if not self.submitting:
                self.unseen = None
        job.saw(sighting, now)

    def missed(self, seen: Collection[JobId], asked: Instant, settle: float) -> bool:
        """Count a complete observation; return whether a job never seen is now believed not to be.

        An agent that is connected outranks it, as long as the entry is wanted.
        """
        if self._agent_connected and self.wanted:
            return False
        for job in self.jobs.values():
            if job.job_id not in seen:
                job.missed(asked, settle)
        if self.unseen is None or self.submitting or not self.unseen.missed(asked, settle):
            return False
        self.unseen = None
        return True

    def doubt(self, now: Instant) -> None:
        """Begin all reckoning of absence anew; nothing else changes."""
        for job in self.jobs.values():
            job.doubt(now)
        if self.unseen is not None:
            self.unseen.restart(now)

    def in_doubt(self) -> bool:
        """Whether a further complete observation would tell something."""
        if not self.wanted:
            return not self.is_gone
        if self._agent_connected:
            return False
        return self.unseen is not None or not all(job.certain for job in self.live_jobs)

    def note(self, reason: str | None) -> None:
        """Show a reason of our own, until the manager gives one."""
        if self.phase is not Stage.ENDED:
            self._reason = reason

    def end(self, reason: str, exit_code: int | None = None) -> None:
        """Declare it over, for good: from now on it is unwanted."""
        self.phase = Stage.ENDED
        self.wanted = False
        self._reason = reason
        self.exit_code = exit_code

    def fail(self, failure: LaunchFailed) -> None:
        """Declare it over because it did not come up."""
        self.failure = failure
        self.end(failure.reason)

    def refresh(self, now: Instant) -> None:
        """Work out anew what is shown, and wake who waits if that changed."""
        live = self.live_jobs
        job = live[-1] if live else self._shown_job()
        if job is not None:
            self.job_id = job.job_id
            if job.sighting is not None:
                self.host = job.sighting.host or self.host
        over = job is not None and not live
        self.manager_says = job.last_words() if over and job and self._agent_connected else None
        if self.phase is not Stage.ENDED:
            self._advance(job, over)
        if self.phase in (Stage.QUEUED, Stage.RUNNING):
            self._step("submitted", now)
        if self.phase is not Stage.SUBMITTING:
            self._step(self.phase.name.lower(), now)
        if (shown := self._shown()) != self._last_shown:
            self._last_shown = shown
            self.wake()

    def _shown_job(self) -> Job | None:
        if self.job_id is not None:
            return self.jobs[self.job_id]
        return next(reversed(self.jobs.values()), None)

    def _advance(self, job: Job | None, over: bool) -> None:
        if over and job is not None and not (self._agent_connected and self.wanted):
            self.end(job.last_words(), job.sighting.exit_code if job.sighting and not job.vanished else None)
        elif self.is_gone:
            self.end("it was no longer wanted")
        else:
            if job is not None and job.live and job.sighting is not None:
                self._reason = job.sighting.reason
            if self._agent_connected or (job is not None and job.phase is Phase.RUNNING):
                self.phase = Stage.RUNNING
            elif job is not None or self.submission is Submission.ACCEPTED:
                self.phase = Stage.QUEUED

    def wake(self) -> None:
        """Wake who waits."""
        self._version += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _changed_since(self, version: int) -> bool:
        return self._version != version

    def _shown(self) -> tuple[object, ...]:
        return (
            *(self.phase, self.host, self.job_id, self._reason, self.exit_code, self.failure),
            *(self.manager_says, self.wanted, self.is_gone),
        )

    def _step(self, step: str, now: Instant) -> None:
        self.steps.setdefault(step, Times(now.at, time.time()))

    async def _wait(self, reached: Callable[[], bool], timeout: float | None = None) -> bool:
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while not reached():
            if self.closed:
                raise CoreClosed(f"{self.mark}: nobody watches it any more")
            if deadline is not None and loop.time() >= deadline:
                return False
            waiter = loop.create_future()
            self._waiters.add(waiter)
            alarm = loop.call_at(deadline, _ring, waiter) if deadline is not None else None
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
                if alarm is not None:
                    alarm.cancel()
        return True


def _ring(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
