"""What a resource manager may do to us, each by its name, on a manager in memory.

A fault is a value. ``with FallsSilent().on(manager): ...`` has it for a while; ``begin`` and ``end`` do the
same by hand, on the manager's loop. To end a fault is to have the manager honest again in that respect,
whoever made it dishonest; what was done meanwhile is not undone. ``FAULTS`` are all of them, with amounts
that the roster withstands at its own settings.

To withstand: no live kernel is declared dead, no unwanted job survives, no second kernel answers to an id.
Each docstring says up to which limit; beyond it the roster believes what any reader of that manager would.
While an agent is connected, none of them has its kernel declared dead, for the agent outranks the manager.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from elsewhere.backend import JobId, Mark, Phase
from elsewhere.errors import BackendError, Rejected, Unreachable
from elsewhere.testing.memory import MemoryJob, MemoryManager


class Fault(ABC):
    """One way in which a manager fails. Frozen: the manager keeps what is to be kept."""

    @abstractmethod
    def begin(self, manager: MemoryManager) -> None:
        """Have the manager fail in this way from now on, or once if it is an ``Event``."""

    @abstractmethod
    def end(self, manager: MemoryManager) -> None:
        """Have it fail in this way no longer. May be called without ``begin``."""

    @contextmanager
    def on(self, manager: MemoryManager) -> Iterator[None]:
        """Fail in this way for as long as the context lasts."""
        self.begin(manager)
        try:
            yield
        finally:
            self.end(manager)


class Event(Fault):
    """What a manager does once: there is nothing to end."""

    def end(self, manager: MemoryManager) -> None:
        """Do nothing."""


# It does not answer, or not in time.


@dataclass(frozen=True)
class FallsSilent(Fault):
    """It neither answers nor does anything; its jobs go on. Withstood for any time.

    It fails at once: that a question which hangs becomes ``Unreachable`` is the backend's part.
    """

    def begin(self, manager: MemoryManager) -> None:
        manager.down = True

    def end(self, manager: MemoryManager) -> None:
        manager.down = False


@dataclass(frozen=True)
class IsSlow(Fault):
    """Each answer takes so many seconds and tells how things were when it was asked. Withstood for any time:
    everything only takes longer."""

    seconds: float = 4.0

    def begin(self, manager: MemoryManager) -> None:
        manager.latency = self.seconds

    def end(self, manager: MemoryManager) -> None:
        manager.latency = 0.0


@dataclass(frozen=True)
class RaisesWhatItMayNot(Fault):
    """Each call of the backend raises an error that is neither ``Rejected`` nor ``Unreachable``: a backend
    with a bug. Withstood for any time: taken as no answer, and logged as an error."""

    problem: str = "a bug"

    def begin(self, manager: MemoryManager) -> None:
        manager.fault = RuntimeError(self.problem)

    def end(self, manager: MemoryManager) -> None:
        manager.fault = None


# It is asked to take a job in.


@dataclass(frozen=True)
class LosesTheAnswer(Fault):
    """So many submits are done, and not answered. Withstood: the job is seen, by its mark.

    Not if the job is shown so late that its absence is believed first: it is then submitted again.
    """

    times: int = 1

    def begin(self, manager: MemoryManager) -> None:
        manager.lose_answers = self.times

    def end(self, manager: MemoryManager) -> None:
        manager.lose_answers = 0


@dataclass(frozen=True)
class LosesTheRequest(Fault):
    """So many submits are neither done nor answered. Withstood: submitted again once absence is believed."""

    times: int = 1

    def begin(self, manager: MemoryManager) -> None:
        manager.lose_requests = self.times

    def end(self, manager: MemoryManager) -> None:
        manager.lose_requests = 0


@dataclass(frozen=True)
class FailsHalfwayThroughSubmit(Fault):
    """So many submits leave a job that waits for ever, and fail; with ``refused`` the manager even says no.

    Withstood: after ``Unreachable`` the job is taken for what it seems, one that waits (a queue_timeout or
    its user ends it); after ``Rejected`` the launch has failed and the job is cancelled when it is seen.
    """

    times: int = 1
    refused: bool = False

    def begin(self, manager: MemoryManager) -> None:
        error: BackendError = Unreachable("it broke off halfway")
        manager.halfway = self.times
        manager.halfway_error = Rejected("it cannot do the rest") if self.refused else error

    def end(self, manager: MemoryManager) -> None:
        manager.halfway = 0


@dataclass(frozen=True)
class Refuses(Fault):
    """It says no to each submit, in these words. Withstood: the launch fails with them; what runs goes on."""

    reason: str = "no such queue"

    def begin(self, manager: MemoryManager) -> None:
        manager.rejects = self.reason

    def end(self, manager: MemoryManager) -> None:
        manager.rejects = None


@dataclass(frozen=True)
class GivesNoIds(Fault):
    """A submit does not return the job's id, as some managers cannot. Withstood: the first sighting does."""

    def begin(self, manager: MemoryManager) -> None:
        manager.gives_ids = False

    def end(self, manager: MemoryManager) -> None:
        manager.gives_ids = True


# It lists its jobs.


@dataclass(frozen=True)
class ShowsJobsLate(Fault):
    """Jobs taken in from now on are in the lists only after so many seconds.

    Withstood below the roster's ``settle``: later than that, a job without an agent is believed lost.
    """

    seconds: float = 4.5

    def begin(self, manager: MemoryManager) -> None:
        manager.lag = self.seconds

    def end(self, manager: MemoryManager) -> None:
        manager.lag = 0.0


@dataclass(frozen=True)
class StartsEmptyAfterAnOutage(Fault):
    """When it is back from an outage its lists are empty for so many seconds.

    Withstood below the roster's ``settle``, if the roster noticed the outage, that is if anything was
    asked in it: the reckoning of absence then begins anew with the first answer.
    """

    seconds: float = 4.5

    def begin(self, manager: MemoryManager) -> None:
        manager.amnesia = self.seconds

    def end(self, manager: MemoryManager) -> None:
        manager.amnesia = 0.0


@dataclass(frozen=True)
class ShowsAnEmptyList(Fault):
    """So many lists in a row show nothing. Withstood: one, or as many as are asked within ``settle``."""

    times: int = 1

    def begin(self, manager: MemoryManager) -> None:
        manager.omit = self.times

    def end(self, manager: MemoryManager) -> None:
        manager.omit = 0


@dataclass(frozen=True)
class Forgets(Fault):
    """It lists a job (None: each that lives now) no longer, although it lives; its end: it lists them all.

    Not withstood: absence is believed, after ``settle`` and two lists. What is remembered later is then
    unwanted and is cancelled, so no second kernel comes of it. Withstood while the agent is connected.
    """

    job_id: JobId | None = None

    def begin(self, manager: MemoryManager) -> None:
        for job in _jobs(manager, self.job_id):
            manager.forget(job)

    def end(self, manager: MemoryManager) -> None:
        for job in manager.jobs.values():
            manager.remember(job)


@dataclass(frozen=True)
class ForgetsEndedJobs(Fault):
    """It lists no job that has ended, as many do. Withstood for any time: what is absent is believed over,
    only later and without a reason. Where it tells changes it still tells an end, or nobody would look."""

    def begin(self, manager: MemoryManager) -> None:
        manager.forgets_ended = True

    def end(self, manager: MemoryManager) -> None:
        manager.forgets_ended = False


@dataclass(frozen=True)
class LiesAboutState(Fault):
    """It says of a job (None: each that lives now) that it is in this phase, whatever becomes of it.

    Withstood for QUEUED and RUNNING: what has ended is believed over when the lie is. ENDED is believed
    at once, of a job whose agent is not connected, for there is no better witness; found alive later, the
    job is unwanted and is cancelled.
    """

    phase: Phase = Phase.ENDED
    job_id: JobId | None = None

    def begin(self, manager: MemoryManager) -> None:
        for job in _jobs(manager, self.job_id):
            manager.say(job, replace(job.sighting(), phase=self.phase, reason="so it says"))

    def end(self, manager: MemoryManager) -> None:
        for job_id in list(manager.says):
            manager.say(manager.jobs[job_id], None)


@dataclass(frozen=True)
class ReturnsOthersJobs(Fault):
    """Its lists hold the jobs of other homes too; ``kernel_id``: one of them runs a kernel of this id.

    To be withstood by the backend, which tells them apart by the home in the mark: a sighting has none.
    """

    kernel_id: str = "theirs"
    home_id: str = "another"

    def begin(self, manager: MemoryManager) -> None:
        manager.shows_others = True
        mark = Mark(self.home_id, self.kernel_id, 1)
        if not manager.live(mark):
            manager.add(mark, Phase.RUNNING)

    def end(self, manager: MemoryManager) -> None:
        manager.shows_others = False


# What it does to jobs.


@dataclass(frozen=True)
class IgnoresCancels(Fault):
    """So many cancels are answered, and not done. Withstood: what is still seen is cancelled again."""

    times: int = 1

    def begin(self, manager: MemoryManager) -> None:
        manager.ignores_cancels = self.times

    def end(self, manager: MemoryManager) -> None:
        manager.ignores_cancels = 0


@dataclass(frozen=True)
class RunsTheJobTwice(Event):
    """Of a job (None: of each that lives now) a second one runs, with the same mark and parcel.

    Withstood with the switchboard: the token admits the first agent that calls, and the job of the
    other one ends itself. The roster knows both, keeps the launch while one lives, and cancels both.
    """

    job_id: JobId | None = None

    def begin(self, manager: MemoryManager) -> None:
        for job in _jobs(manager, self.job_id):
            manager.add(job.mark)


@dataclass(frozen=True)
class RequeuesARunningJob(Event):
    """A job (None: each that runs now) is stopped and waits again, under the same id.

    Its kernel is dead, as a requeued batch job's is. The roster shows a job that waits; when it runs anew,
    its agent is not the one that the token admitted, and so the job ends itself.
    """

    job_id: JobId | None = None

    def begin(self, manager: MemoryManager) -> None:
        for job in _jobs(manager, self.job_id):
            if job.phase is Phase.RUNNING:
                manager.wait(job, "requeued")


def _jobs(manager: MemoryManager, job_id: JobId | None) -> list[MemoryJob]:
    return manager.live() if job_id is None else [manager.jobs[job_id]]


FAULTS: tuple[Fault, ...] = (
    FallsSilent(),
    IsSlow(),
    RaisesWhatItMayNot(),
    LosesTheAnswer(),
    LosesTheRequest(),
    FailsHalfwayThroughSubmit(),
    FailsHalfwayThroughSubmit(refused=True),
    Refuses(),
    GivesNoIds(),
    ShowsJobsLate(),
    StartsEmptyAfterAnOutage(),
    ShowsAnEmptyList(),
    Forgets(),
    ForgetsEndedJobs(),
    LiesAboutState(),
    LiesAboutState(Phase.QUEUED),
    LiesAboutState(Phase.RUNNING),
    ReturnsOthersJobs(),
    IgnoresCancels(),
    RunsTheJobTwice(),
    RequeuesARunningJob(),
)
"""Every fault, at least once."""


def lift_all(manager: MemoryManager) -> None:
    """End every fault: the manager is honest from now on."""
    for fault in FAULTS:
        fault.end(manager)
