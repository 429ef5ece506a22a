"""What the tests of the roster share: a home on a manager in memory, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from elsewhere.backend import JobId, Launch, Mark, Order, Parcel
from elsewhere.roster import Entry, Roster
from elsewhere.testing.memory import (
    MemoryBackend,
    MemoryConfig,
    MemoryJob,
    MemoryManager,
    MemoryOptions,
    MemoryRequest,
)

HOME = "home1"
PARCEL = Parcel(b"secret")

MemoryRoster = Roster[MemoryOptions, MemoryRequest]


def mark(kernel_id: str = "k", launch: int = 1, home_id: str = HOME) -> Mark:
    return Mark(home_id, kernel_id, launch)


def launch_of(of: Mark) -> Launch[MemoryOptions]:
    return Launch(of, "python3", "user", "python3", Order(("kernel",)), MemoryOptions())


class Home:
    """A roster, its manager, and short words for what the tests do to both."""

    def __init__(self, roster: MemoryRoster, manager: MemoryManager) -> None:
        self.roster = roster
        self.manager = manager

    async def submit(self, kernel_id: str = "k", launch: int = 1, **kwargs: Any) -> Entry:
        one = launch_of(mark(kernel_id, launch))
        return await self.roster.submit(one, self.roster.backend.render(one), PARCEL, **kwargs)

    def job(self, entry: Entry) -> MemoryJob:
        assert entry.job_id is not None
        return self.manager.jobs[entry.job_id]

    def cancels_of(self, job: MemoryJob | JobId) -> list[float]:
        """When each cancel of a job was asked."""
        job_id = job.job_id if isinstance(job, MemoryJob) else job
        return [at for at, of, _ in self.manager.cancels if of == job_id]


@asynccontextmanager
async def home(
    manager: MemoryManager | None = None, *, interval: float = 3.0, push: bool = False, **kwargs: Any
) -> AsyncIterator[Home]:
    """A started roster on a manager; closed, and shown to have no task left, at the end."""
    manager = manager or MemoryManager()
    backend = MemoryBackend(HOME, MemoryConfig(survey_interval=interval, push=push), manager)
    async with Roster(backend, **kwargs) as roster:
        yield Home(roster, manager)
    ours = [task.get_name() for task in asyncio.all_tasks()]  # a test's own tasks have no name
    assert [name for name in ours if not name.startswith("Task-")] == []


def now() -> float:
    return asyncio.get_running_loop().time()
