"""What the roster asks a manager to do to single jobs: cancel, and discard what they left.

Each errand is a task owned here, tried again while the manager does not answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

from elsewhere.backend import Backend, JobId, Logs
from elsewhere.errors import Rejected, Unreachable
from elsewhere.roster.reckoning import Job

log = logging.getLogger(__name__)

DISCARDS_AT_MOST = 8
LAST_DISCARDS = 2.0
"""Seconds that closing waits for what jobs left to be removed."""

T = TypeVar("T")


class Backoff:
    """Pauses of 0.5 s, doubled up to 30 s, each shortened by chance so that not all come at once."""

    def __init__(self) -> None:
        self._next = 0.5

    def pause(self) -> float:
        """Return how long to wait now."""
        pause, self._next = self._next, min(self._next * 2, 30.0)
        return round(pause * random.uniform(0.5, 1.0), 3)  # noqa: S311 - nothing secret

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._next = 0.5


class Tasks:
    """Tasks that end with their owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run a coroutine until it ends or ``aclose`` is called."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Cancel them all and wait for their end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Errands:
    """The cancels and discards of one roster; at most ``at_once`` of them ask at the same time."""

    def __init__(self, backend: Backend[Any, Any], tasks: Tasks, *, at_once: int, again: float) -> None:
        self._backend = backend
        self._tasks = tasks
        self._slots = asyncio.Semaphore(at_once)
        self._again = again
        self._cancels: dict[JobId, asyncio.Task[None]] = {}
        self._discards: set[asyncio.Task[None]] = set()

    def cancel_if_due(self, job: Job, grace: float) -> None:
        """Ask for a job's end, unless that was done and it was not seen since, or only just."""
        if job.job_id not in self._cancels and job.cancel_due(asyncio.get_running_loop().time()):
            job.grace = grace
            self._cancels[job.job_id] = self._tasks.start(self._cancel(job), f"cancel {job.job_id}")

    def drop_cancel(self, job: Job) -> None:
        """Let go of a cancel that is under way."""
        if task := self._cancels.pop(job.job_id, None):
            task.cancel()

    def discard(self, job: Job) -> None:
        """Have removed what an ended job left behind, once, if the backend keeps that."""
        if isinstance(self._backend, Logs) and not job.discarded:
            job.discarded = True
            task = self._tasks.start(self._discard(self._backend, job.job_id), f"discard {job.job_id}")
            self._discards.add(task)
            task.add_done_callback(self._discards.discard)

    async def finish_discards(self, timeout: float) -> None:
        """Wait for the discards under way, at most so many seconds: nobody would do them later."""
        if self._discards:
            await asyncio.wait(self._discards, timeout=timeout)

    async def _cancel(self, job: Job) -> None:
        backoff = Backoff()
        while job.live:
            try:
                async with self._slots:
                    await self._backend.cancel(job.job_id, grace=job.grace or 0.0)
                break
            except Rejected as error:
                log.warning("the manager does not cancel job %s: %s", job.job_id, error)
                break
            except Exception as error:
                tell("cancel", error)
            await asyncio.sleep(backoff.pause())
        job.cancelled(asyncio.get_running_loop().time(), self._again)
        if self._cancels.get(job.job_id) is asyncio.current_task():
            del self._cancels[job.job_id]

    async def _discard(self, logs: Logs, job_id: JobId) -> None:
        backoff = Backoff()
        for _ in range(DISCARDS_AT_MOST):
            try:
                async with self._slots:
                    await logs.discard(job_id)
                return
            except Rejected as error:
                log.warning("the manager does not discard what job %s left: %s", job_id, error)
                return
            except Exception as error:
                tell("discard", error)
            await asyncio.sleep(backoff.pause())


def tell(question: str, error: BaseException) -> None:
    """Log that a question got no answer: loudly, where the manager said no or the backend has a fault."""
    if isinstance(error, Unreachable):
        log.debug("the manager did not answer a %s: %s", question, error)
    elif isinstance(error, Rejected):
        log.warning("the manager refused a %s; taken as no answer: %s", question, error)
    else:
        log.error("a fault in the backend's %s; taken as no answer", question, exc_info=error)
