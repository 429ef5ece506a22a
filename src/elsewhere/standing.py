"""Where a kernel stands, all at one moment: for people, for the gateway's answers, for its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .agent.words import Report
from .job import Job
from .roster import Stage

NOT_LAUNCHED = "not launched"


@dataclass(frozen=True)
class Standing:
    """``state`` is one of these words, ``status`` the same for a person, in a few.

    asked: nothing was handed to the manager yet, or it has not answered. queued: the manager has the
    job. running: the job runs, its agent has not called. starting: the kernel starts. idle, busy: it
    listens, and this is the last that its agent said of it (``connected``: whether it could say more
    now). exited: the kernel is over, its job is not. dead: both are.

    ``reason``: why it is over, and before that what the manager gives as the reason of its wait.
    ``steps``: their names with times of the wall's clock, oldest first.
    """

    state: str
    status: str
    cluster: str
    backend: str
    host: str | None
    job_id: str | None
    launch: int
    start: int
    connected: bool
    reason: str
    spooled: int
    warnings: tuple[str, ...]
    steps: tuple[tuple[str, float], ...]

    @classmethod
    def of(
        cls,
        job: Job | None,
        exited: tuple[int, str] | None,
        *,
        cluster: str,
        backend: str,
        launch: int,
        start: int,
        steps: Mapping[str, float],
        waits_for: str = "",
    ) -> Standing:
        """Return where the kernel of this job stands, whose start has this number; from any thread.

        ``waits_for``: why there is no job yet.
        """
        report = job.line.report if job is not None else None
        current = report if report is not None and report.start == start else None
        reason = exited[1] if exited is not None else (job.entry.reason if job is not None else None) or ""
        return cls(
            state=_state(job, current, exited is not None),
            status=reason if exited is not None else _status(job, current, reason or waits_for),
            cluster=cluster,
            backend=backend,
            host=(job.line.host or job.entry.host) if job is not None else None,
            job_id=job.entry.job_id if job is not None else None,
            launch=launch,
            start=start,
            connected=job is not None and job.line.connected,
            reason=reason,
            spooled=report.spooled if report is not None else 0,
            warnings=tuple(current.warnings) if current is not None else (),
            steps=tuple(sorted(dict(steps).items(), key=lambda step: step[1])),
        )

    def over(self, reason: str) -> Standing:
        """Return the same kernel once its job is over; for this reason, unless it had one before."""
        reason = self.reason or reason
        return replace(self, state="dead", status=reason, reason=reason, connected=False, spooled=0)


def _state(job: Job | None, report: Report | None, exited: bool) -> str:
    if job is None:
        return "asked"
    if exited:
        return "dead" if job.line.over else "exited"
    if report is not None:
        if report.phase == "ready":
            return "busy" if report.execution_state == "busy" else "idle"
        return "starting" if report.phase == "starting" else "exited"
    if job.line.connected or job.line.report is not None:
        return "starting"
    stages = {Stage.SUBMITTING: "asked", Stage.QUEUED: "queued", Stage.RUNNING: "running"}
    return stages.get(job.entry.phase, "dead")


def _status(job: Job | None, report: Report | None, reason: str) -> str:
    if job is None:
        return reason or NOT_LAUNCHED
    if report is not None:
        return "kernel " + report.phase
    if job.line.connected or job.line.report is not None:
        return "kernel starting"
    if job.entry.phase is Stage.RUNNING:
        return "the job runs; waiting for its agent"
    return f"{job.entry.phase.name.lower()}" + (f": {reason}" if reason else "")


NOWHERE = Standing.of(None, None, cluster="", backend="", launch=0, start=0, steps={})
"""Where a kernel stands that nobody has begun to launch."""
