"""One launch as its home sees it: what the manager says of the job, its agent's line, and why it failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .backend import Logs
from .errors import CoreClosed, ElsewhereError, LaunchFailed
from .line import Line
from .roster import Entry, Roster, Stage
from .settings import LaunchSettings

LOG_LINES = 20


@dataclass(frozen=True)
class Job:
    """One launch's job. ``follower`` tells the line what the manager says, and ends with the job."""

    entry: Entry
    line: Line
    roster: Roster[Any, Any]
    settings: LaunchSettings
    follower: asyncio.Task[None]

    @classmethod
    def followed(cls, entry: Entry, line: Line, roster: Roster[Any, Any], settings: LaunchSettings) -> Job:
        """Return the job, with a follower that has begun."""
        follower = asyncio.get_running_loop().create_task(_follow(entry, line))
        return cls(entry, line, roster, settings, follower)

    async def log(self, lines: int = LOG_LINES) -> tuple[str, ...]:
        """Return the last lines of what the job printed: as its agent reported, else from the backend."""
        report = self.line.report
        if report is not None and report.log:
            return tuple(report.log[-lines:])
        backend = self.roster.backend
        if not isinstance(backend, Logs) or self.entry.job_id is None:
            return ()
        try:
            return tuple(await backend.tail(self.entry.job_id, lines))
        except ElsewhereError as error:
            return (f"(the log cannot be read: {error})",)

    async def failure(self) -> LaunchFailed:
        """Return why a job that has ended never had a kernel."""
        entry = self.entry
        if entry.failure is not None:
            return LaunchFailed(entry.failure.step, entry.failure.reason, await self.log())
        ran = "running" in entry.steps or entry.exit_code is not None
        step = "agent" if ran else "queue"
        reason = entry.reason or "the job ended"
        return LaunchFailed(step, reason, await self.log())

    async def too_slow(self, addresses: Iterable[str]) -> LaunchFailed:
        """Return that it took longer than its ``start_timeout``; its agent dials these addresses."""
        seconds = f"{self.settings.start_timeout:g} s"
        if self.line.connected:
            reason = f"the kernel does not listen {seconds} after its job began to run (start_timeout)"
            return LaunchFailed("kernel", reason, await self.log())
        reason = (
            f"the agent did not call home within {seconds} of its job's start (start_timeout); "
            f"it dials {', '.join(addresses)}"
        )
        return LaunchFailed("agent", reason, await self.log())

    async def until(
        self,
        ready: Callable[[], Awaitable[bool]],
        addresses: Iterable[str],
        *,
        counts: Callable[[], bool] = lambda: True,
    ) -> None:
        """Return once ``ready`` says so at a change of the line; what it raises is raised.

        Raises LaunchFailed ``start_timeout`` after the job runs, if its time ``counts``.
        """
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        while True:
            change = self.line.changes.next()
            if await ready():
                change.cancel()
                return
            if deadline is None and self.entry.phase is Stage.RUNNING and counts():
                deadline = loop.time() + self.settings.start_timeout
            timeout = None if deadline is None else deadline - loop.time()
            if timeout is not None and timeout <= 0:
                change.cancel()
                raise await self.too_slow(addresses)
            await asyncio.wait({change}, timeout=timeout)

    @property
    def was_never_submitted(self) -> bool:
        """Whether it is over and never ran: the manager does not know it, or no longer, and no agent called.

        A job of which the manager says that it ended, say because somebody cancelled it, was submitted.
        """
        entry = self.entry
        called = entry.agent_seen or bool(self.line.admission.secret_hash)
        vanished = all(job.vanished for job in entry.jobs.values())
        return entry.phase is Stage.ENDED and vanished and "running" not in entry.steps and not called


async def _follow(entry: Entry, line: Line) -> None:
    """What the manager says is a change of the line too; the job's end is the line's end."""
    try:
        async for _ in entry.changes():
            line.changes.notify()
    except CoreClosed:
        return
    line.end(_death(entry, line))


def _death(entry: Entry, line: Line) -> str:
    reason = entry.reason or "the manager says no more"
    if line.report is None:
        return f"the job is over: {reason}"
    return f"the job is over, its agent died: {reason}"
