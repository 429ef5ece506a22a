"""Who is out there, kept in memory: one roster for one cluster.

It holds what is wanted against what is seen, and works until they agree. It asks the manager, by one
watch for all kernels, and owns every task that it starts. What to believe is decided in
``reckoning.py``, ``entry.py`` and ``strangers.py``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from elsewhere.backend import Backend, JobId, Launch, Mark, Observation, OptionsT, Parcel, RequestT
from elsewhere.errors import CoreClosed, LaunchFailed, Rejected
from elsewhere.roster.entry import NEVER_SEEN, NO_ANSWER, Entry, Stage, Submission
from elsewhere.roster.errands import LAST_DISCARDS, Backoff, Errands, Tasks, tell
from elsewhere.roster.reckoning import VANISHED, Absence, Instant, Job
from elsewhere.roster.strangers import Key, Strangers

log = logging.getLogger(__name__)

T = TypeVar("T")

DOUBLED_AT_MOST = 3
PORTION = 256
"""Jobs that are looked at in one turn of the loop."""
SURE_AT_MOST = 1800.0
"""Seconds after which all jobs are asked for, where a watch only tells changes: it may have missed one."""


@dataclass
class _Order(Generic[RequestT]):
    """What to submit, kept only until a job is known (the parcel holds secrets)."""

    request: RequestT
    parcel: Parcel
    attempts: int = 0


class Roster(Generic[OptionsT, RequestT]):
    """What is wanted of one cluster, and what is seen there.

    ``settle``: seconds after which two complete observations are believed that do not show a job.
    ``cancel_again``: seconds until what is unwanted and still seen is cancelled once more.
    ``orphan_grace``: seconds until a job of this home that nobody asked for is cancelled; None if
    such jobs are left alone. ``cancel_grace``: for jobs that nobody released. Belongs to one loop.
    """

    def __init__(
        self,
        backend: Backend[OptionsT, RequestT],
        *,
        submits_at_once: int = 8,
        settle: float = 6.0,
        cancel_again: float = 10.0,
        orphan_grace: float | None = None,
        cancel_grace: float = 5.0,
    ) -> None:
        self.backend = backend
        self.settle = settle
        self.cancel_again = cancel_again
        self.orphan_grace = orphan_grace
        self.cancel_grace = cancel_grace
        self.stale_since: float | None = None
        self.silence: str | None = None
        self._patience = max(settle, 3 * backend.config.survey_interval)
        self._submit_slots = asyncio.Semaphore(submits_at_once)
        self._entries: dict[Key, Entry] = {}
        self._launches: dict[str, set[int]] = {}
        self._strangers = Strangers(orphan_grace)
        self._orders: dict[Key, _Order[RequestT]] = {}
        self._line: dict[Key, None] = {}
        self._submits: dict[Key, asyncio.Task[JobId | None]] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._tasks = Tasks()
        self._errands = Errands(backend, self._tasks, at_once=submits_at_once, again=cancel_again)
        self._turn = 0
        self._last_answer = 0.0
        self._last_complete = 0.0
        self._wake = asyncio.Event()
        self._answered = asyncio.Event()
        self._started = False
        self._closed = False

    # What the core calls.

    async def __aenter__(self) -> Roster[OptionsT, RequestT]:
        self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def start(self) -> None:
        """Begin to watch. Called once, on the loop that the roster then belongs to."""
        if self._started:
            raise RuntimeError("a roster is started once")
        self._started = True
        self._last_answer = self._last_complete = self._now().at
        self._tasks.start(self._watch(), "watch")

    async def aclose(self) -> None:
        """End all tasks; jobs go on, wanted or not. Who still waits gets ``CoreClosed``.

        What released jobs left behind is removed first, if that is done within LAST_DISCARDS seconds.
        """
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        await self._errands.finish_discards(LAST_DISCARDS)
        await self._tasks.aclose()
        for entry in self._entries.values():
            entry.closed = True
            entry.wake()
        self._orders.clear()

    @property
    def entries(self) -> Iterable[Entry]:
        """All that is wanted, and all that is not and not gone yet."""
        return tuple(self._entries.values())

    def get(self, kernel_id: str, launch: int) -> Entry | None:
        """Return the entry of one launch, until it is released and gone."""
        return self._entries.get((kernel_id, launch))

    async def submit(
        self,
        launch: Launch[OptionsT],
        request: RequestT,
        parcel: Parcel,
        *,
        queue_timeout: float | None = None,
    ) -> Entry:
        """Want this launch and return its entry at once; older launches of its kernel are released.

        The job is handed over by a task of the roster; ``release`` takes it back at any time.
        ``queue_timeout`` counts from now until it runs.
        """
        entry = self._want(launch.mark)
        key = _key(launch.mark)
        self._orders[key] = _Order(request, parcel)
        if queue_timeout is not None:
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(queue_timeout, self._waited_enough, entry, queue_timeout)
        self._hand_over(entry)
        return entry

    async def adopt(self, mark: Mark) -> Entry:
        """Want a launch that was submitted in an earlier life of this home; it is never submitted.

        If the manager does not know it (believed as any absence), the entry ends.
        """
        entry = self._want(mark)
        entry.submission = Submission.UNKNOWN
        entry.unseen = None if entry.jobs else Absence(self._now())
        self._review(entry)
        return entry

    async def release(self, entry: Entry, *, grace: float) -> None:
        """Want it no longer: cancel what is out there, and forget the entry when it is gone.

        Returns at once (``entry.gone()`` waits). May be called again, say with a shorter grace.
        """
        if self._entries.get(_key(entry.mark)) is not entry:
            return
        if entry.agent_connected:
            for job in entry.jobs.values():
                job.outranked(self._now())
        for job in entry.live_jobs:
            if job.grace is None or grace < job.grace or not entry.released:
                self._errands.drop_cancel(job)
                job.cancel_from(self._now().at)
        entry.wanted, entry.released, entry.grace = False, True, grace
        self._review(entry)

    # Wanting.

    def _want(self, mark: Mark) -> Entry:
        if self._closed:
            raise CoreClosed("the roster has been closed")
        if mark.home_id != self.backend.home_id:
            raise ValueError(f"{mark} is not of home {self.backend.home_id}")
        key = _key(mark)
        if key in self._entries:
            raise ValueError(f"{mark} is known already")
        now = self._now()
        entry = self._entries[key] = Entry(mark, now, self._agent_told)
        entry.stale_since = self.stale_since
        for job in self._strangers.claim(key):
            entry.jobs[job.job_id] = job
        launches = self._launches.setdefault(mark.kernel_id, set())
        launches.add(mark.launch)
        for number in sorted(launches):
            if number < mark.launch:
                older = self._entries[mark.kernel_id, number]
                older.wanted, older.released = False, True
                self._review(older)
        self._wake.set()
        return entry

    def _hand_over(self, entry: Entry) -> None:
        key = _key(entry.mark)
        entry.submission = Submission.WAITING
        self._line[key] = None
        entry.place_in_line = partial(self._place_in_line, key)
        task = self._tasks.start(self._submit(entry, self._orders[key]), f"submit {entry.mark}")
        self._submits[key] = task
        task.add_done_callback(partial(self._handed_over, entry))
        self._review(entry)

    def _place_in_line(self, key: Key) -> int:
        return list(self._line).index(key)

    async def _submit(self, entry: Entry, order: _Order[RequestT]) -> JobId | None:
        async with self._submit_slots:
            order.attempts += 1
            entry.submission = Submission.ASKED
            entry.place_in_line = None
            return await self.backend.submit(order.request, order.parcel)

    def _handed_over(self, entry: Entry, task: asyncio.Task[JobId | None]) -> None:
        """Take in how a submit ended; it may have been cancelled before it began."""
        key, now = _key(entry.mark), self._now()
        self._line.pop(key, None)
        self._submits.pop(key, None)
        entry.place_in_line = None
        asked = entry.submission is Submission.ASKED
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            entry.submission = Submission.UNKNOWN if asked else Submission.NOT_DONE
            order = self._orders.get(key)
            if asked and not isinstance(error, Rejected):
                entry.unseen = Absence(now)
            elif order is None or order.attempts <= 1:
                entry.unseen = None
        if isinstance(error, Rejected):
            entry.submission = Submission.NOT_DONE
            if not entry.jobs and entry.phase is not Stage.ENDED:
                entry.fail(LaunchFailed("submit", str(error) or "the manager said no"))
        elif error is not None:
            tell("submit", error)
            entry.note(NO_ANSWER)
        elif not task.cancelled():
            entry.submission = Submission.ACCEPTED
            self._answered.set()
            job_id = task.result()
            if job_id is not None and job_id not in entry.jobs:
                entry.jobs[job_id] = Job(job_id, now)
            entry.unseen = None if entry.jobs else Absence(now)
            entry.note(None)
        self._review(entry)

    def _waited_enough(self, entry: Entry, timeout: float) -> None:
        sighted = [job.sighting.reason for job in entry.live_jobs if job.sighting and job.sighting.reason]
        if sighted:
            why = f"the manager's last reason: {sighted[-1]}"
        elif entry.stale_since is not None:
            why = f"the manager has not answered for {self._now().at - entry.stale_since:.0f} s"
        else:
            why = entry.reason or "the manager gave no reason"
        entry.fail(LaunchFailed("queue", f"waited {timeout:g} s in the queue; {why}"))
        self._review(entry)

    # Wanted against seen.

    def _agent_told(self, entry: Entry, exited: bool) -> None:
        now = self._now()
        entry.doubt(now)
        if exited:
            for job in entry.live_jobs:  # it is ending by itself; cancelled if it does not
                job.cancel_from(now.at + self.cancel_again)
        self._review(entry)

    def _review(self, entry: Entry) -> None:
        """Do what follows from what is now known of an entry."""
        if self._closed:
            return
        key, now = _key(entry.mark), self._now()
        entry.refresh(now)
        if entry.jobs or entry.agent_seen or not entry.wanted:
            self._need_no_submit(entry)
        if (not entry.wanted or entry.phase is Stage.RUNNING) and (timer := self._timers.pop(key, None)):
            timer.cancel()
        if entry.wanted:
            return
        self._wake.set()
        for job in entry.live_jobs:
            self._errands.cancel_if_due(job, self.cancel_grace if entry.grace is None else entry.grace)
        if entry.released and entry.is_gone and self._entries.get(key) is entry:
            self._forget(entry)

    def _need_no_submit(self, entry: Entry) -> None:
        """Call off what would bring a second job, and drop the parcel; a first answer is let come."""
        key = _key(entry.mark)
        if key in self._submits:
            if entry.wanted and entry.submission is Submission.ASKED and self._orders[key].attempts == 1:
                return
            self._submits.pop(key).cancel()
        self._orders.pop(key, None)

    def _forget(self, entry: Entry) -> None:
        key = _key(entry.mark)
        del self._entries[key]
        launches = self._launches[entry.mark.kernel_id]
        launches.discard(entry.mark.launch)
        if not launches:
            del self._launches[entry.mark.kernel_id]
        self._strangers.release(key)
        for job in entry.jobs.values():
            self._errands.drop_cancel(job)
            self._errands.discard(job)

    # Seeing.

    def _needed(self) -> bool:
        """Whether there is anything to ask the manager for."""
        return (
            self.orphan_grace is not None
            or any(entry.wanted or not entry.is_gone for entry in self._entries.values())
            or self._strangers_matter()
        )

    async def _watch(self) -> None:
        backoff = Backoff()
        while True:
            while not self._needed():
                self._wake.clear()
                await self._wake.wait()
            try:
                await self._follow(backoff)
                pause = self.backend.config.survey_interval if self._needed() else 0.0
            except Exception as error:
                self._fell_silent("watch", error)
                pause = backoff.pause()
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not beyond a sign that the manager answers again."""
        self._answered.clear()
        alarm = asyncio.get_running_loop().call_later(seconds, self._answered.set)
        try:
            await self._answered.wait()
        finally:
            alarm.cancel()

    async def _follow(self, backoff: Backoff) -> None:
        """Take in what one call of the backend's watch yields, as long as that is of use."""
        second_look = self._tasks.start(self._look_again(), "second look")
        try:
            async with aclosing(self.backend.watch()) as observations:
                while self._needed():
                    asked = self._ask()
                    try:
                        observation = await anext(observations)
                    except StopAsyncIteration:
                        return
                    await self._observe(observation, asked)
                    backoff.reset()
        finally:
            second_look.cancel()

    async def _look_again(self) -> None:
        """Survey where a watch that only tells changes leaves something in doubt, or has gone on for long."""
        while True:
            await asyncio.sleep(
                max(self._last_complete + self._patience - self._now().at, self._patience / 2)
            )
            doubt = self._strangers_matter() or any(entry.in_doubt() for entry in self._entries.values())
            if self._now().at - self._last_complete >= (self._patience if doubt else SURE_AT_MOST):
                asked = self._ask()
                try:
                    await self._observe(await self.backend.survey(), asked)
                except Exception as error:
                    self._fell_silent("survey", error)

    def _now(self) -> Instant:
        return Instant(self._turn, asyncio.get_running_loop().time())

    def _ask(self) -> Instant:
        self._turn += 1
        return self._now()

    def _fell_silent(self, question: str, error: Exception) -> None:
        """Note that the manager did not answer: nothing is believed of it but that."""
        tell(question, error)
        self.silence = str(error)
        self._set_stale(self._last_answer if self.stale_since is None else self.stale_since)

    def _set_stale(self, since: float | None) -> None:
        if since != self.stale_since:
            self.stale_since = since
            for entry in self._entries.values():
                entry.stale_since = since
                entry.wake()

    async def _observe(self, observation: Observation, asked: Instant) -> None:
        """Take it in, in portions, so that thousands of jobs do not hold up the loop."""
        now = self._now()
        if self.stale_since is not None:  # it may be as new to its jobs as we are
            for known in self._entries.values():
                known.doubt(now)
            self._strangers.doubt(now)
        self._last_answer = now.at
        self.silence = None
        self._set_stale(None)
        touched: dict[Key, Entry] = {}
        async for sighting in _in_portions(observation.sightings):
            key = (sighting.kernel_id, sighting.launch)
            if entry := self._entries.get(key):
                entry.saw(sighting, now)
                touched[key] = entry
            else:
                self._strangers.saw(sighting, now)
        if observation.complete:
            self._last_complete = now.at
            seen = {sighting.job_id for sighting in observation.sightings}
            touched = dict(self._entries)
            self._strangers.missed(seen, asked, self.settle)
        async for key, entry in _in_portions(touched.items()):
            if self._entries.get(key) is entry:
                if observation.complete:
                    self._missed(entry, seen, asked)
                self._review(entry)
        self._review_strangers()

    def _missed(self, entry: Entry, seen: set[JobId], asked: Instant) -> None:
        order = self._orders.get(_key(entry.mark))
        doubled = min(max(order.attempts - 1, 0), DOUBLED_AT_MOST) if order else 0
        if not entry.missed(seen, asked, self.settle * 2**doubled) or not entry.wanted or entry.jobs:
            return
        if order is not None and entry.submission is Submission.UNKNOWN:
            log.info(
                "%s: the manager shows no job after a lost answer; submitting again",
                entry.mark,
                extra={"kernel_id": entry.mark.kernel_id},
            )
            self._hand_over(entry)
        else:
            entry.end(NEVER_SEEN if entry.submission is Submission.UNKNOWN else VANISHED)

    # Strangers.

    def _newest(self) -> dict[str, int]:
        newest: dict[str, int] = {}
        for kernel_id, launch in self._entries if self._strangers else ():
            newest[kernel_id] = max(launch, newest.get(kernel_id, 0))
        return newest

    def _strangers_matter(self) -> bool:
        return bool(self._strangers) and self._strangers.matter(self._newest(), self._now().at)

    def _review_strangers(self) -> None:
        for job, leaves in self._strangers.unwanted(self._newest(), self._now().at):
            if job.live:
                self._errands.cancel_if_due(job, self.cancel_grace)
            elif leaves:
                self._errands.discard(job)


def _key(mark: Mark) -> Key:
    return (mark.kernel_id, mark.launch)


async def _in_portions(things: Collection[T]) -> AsyncIterator[T]:
    """Yield them all, and let others have the loop after every PORTION."""
    for number, thing in enumerate(things, 1):
        yield thing
        if number % PORTION == 0:
            await asyncio.sleep(0)
