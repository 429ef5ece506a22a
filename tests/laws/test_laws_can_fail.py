"""For each law a backend that breaks it: a law that cannot fail is none.

All of them start real processes: each is the embedded manager's backend with one fault.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from blockbuster import BlockingError

from elsewhere.backend import JobId, Launch, Mark, Observation, Parcel, Phase, Sighting
from elsewhere.backends.local import LocalBackend, LocalConfig, LocalOptions, LocalRequest
from elsewhere.errors import Rejected, Unreachable
from elsewhere.testing.lab import open_lab
from elsewhere.testing.laws import BackendLaws
from elsewhere.testing.witness import LawBroken
from laws_kit import end_all, local_subject
from site_kit import zombies

PATIENCE = 3.0

BROKEN: list[tuple[str, type[LocalBackend]]] = []


def breaks(law: Callable[..., Any]) -> Callable[[type[LocalBackend]], type[LocalBackend]]:
    """Note which law this backend breaks."""

    def noted(backend: type[LocalBackend]) -> type[LocalBackend]:
        BROKEN.append((law.__name__, backend))
        return backend

    return noted


class Sees(LocalBackend):
    """What it tells of each job may be wrong."""

    def tell(self, sighting: Sighting) -> Sighting:
        return sighting

    async def survey(self) -> Observation:
        seen = (await super().survey()).sightings
        return Observation(tuple(map(self.tell, seen)), complete=True)


@breaks(BackendLaws.test_render_is_pure_and_names_home_kernel_and_launch)
class RendersWhatTheMomentBrings(LocalBackend):
    def render(self, launch: Launch[LocalOptions]) -> LocalRequest:
        return replace(super().render(launch), environment=(uuid4().hex,))


@breaks(BackendLaws.test_no_secret_is_shown)
class ShowsTheEnvironment(LocalBackend):
    def render(self, launch: Launch[LocalOptions]) -> LocalRequest:
        request = super().render(launch)
        given = (f"{name}={value}" for name, value in launch.order.env.items())
        return replace(request, argv=(*request.argv, *given))


@breaks(BackendLaws.test_a_submitted_job_is_seen_with_its_id_and_host)
class KnowsNoHost(Sees):
    def tell(self, sighting: Sighting) -> Sighting:
        return replace(sighting, host=None)


@breaks(BackendLaws.test_a_parcel_arrives_whole)
class LosesTheLastByte(LocalBackend):
    """As a padded end of the archive, which zip files bear."""

    async def submit(self, request: LocalRequest, parcel: Parcel) -> JobId:
        return await super().submit(request, Parcel(parcel.content + b"\n"))


@breaks(BackendLaws.test_awkward_words_are_only_words)
class AsksAShell(LocalBackend):
    def render(self, launch: Launch[LocalOptions]) -> LocalRequest:
        request = super().render(launch)
        return replace(request, argv=("sh", "-c", f"U='{launch.username}' exec {' '.join(request.argv)}"))


@breaks(BackendLaws.test_many_submits_at_once_are_many_jobs)
class ShowsOnePageOnly(Sees):
    async def survey(self) -> Observation:
        return Observation((await super().survey()).sightings[:5], complete=True)


@breaks(BackendLaws.test_what_is_impossible_is_rejected_in_the_managers_words)
class TakesANoForSilence(LocalBackend):
    async def submit(self, request: LocalRequest, parcel: Parcel) -> JobId:
        try:
            return await super().submit(request, parcel)
        except Rejected as error:
            raise Unreachable(str(error)) from error


class SubmitsLater(LocalBackend):
    """Hands jobs over when nobody waits for it any more."""

    delay = 0.2

    def __init__(self, home_id: str, config: LocalConfig) -> None:
        super().__init__(home_id, config)
        self.later: list[asyncio.Task[object]] = []

    async def _late(self, request: LocalRequest, parcel: Parcel) -> JobId:
        await asyncio.sleep(self.delay)
        return await super().submit(request, parcel)

    async def close(self) -> None:
        await asyncio.gather(*self.later, return_exceptions=True)
        await super().close()


@breaks(BackendLaws.test_a_cancelled_submit_leaves_nothing_or_what_the_next_survey_shows)
class GoesOnWhenCancelled(SubmitsLater):
    """What it goes on with comes after the next survey, however long that takes, and before other jobs."""

    def __init__(self, home_id: str, config: LocalConfig) -> None:
        super().__init__(home_id, config)
        self._surveyed = asyncio.Event()

    async def survey(self) -> Observation:
        shown = await super().survey()
        self._surveyed.set()
        return shown

    async def submit(self, request: LocalRequest, parcel: Parcel) -> JobId:
        task = asyncio.create_task(self._after(list(self.later), request, parcel))
        self.later.append(task)
        return await asyncio.shield(task)

    async def _after(
        self, earlier: Sequence[asyncio.Task[object]], request: LocalRequest, parcel: Parcel
    ) -> JobId:
        await self._surveyed.wait()
        await asyncio.gather(*earlier, return_exceptions=True)
        return await LocalBackend.submit(self, request, parcel)


@breaks(BackendLaws.test_a_job_can_be_cancelled_before_it_runs)
class CancelsOnlyWhatRuns(SubmitsLater):
    async def submit(self, request: LocalRequest, parcel: Parcel) -> JobId:
        self.later.append(asyncio.create_task(self._late(request, parcel)))
        return JobId(str(request.mark))


@breaks(BackendLaws.test_a_lost_answer_brings_no_second_job)
class KnowsOnlyWhatItWasTold(LocalBackend):
    """Each submit is a job with a name of its own, and the mark is kept in memory, in vain here."""

    count: ClassVar[int] = 0

    async def submit(self, request: LocalRequest, parcel: Parcel) -> JobId:
        type(self).count += 1
        other = Mark(self.home_id, f"{request.mark.kernel_id}.{self.count}", request.mark.launch)
        directory = request.directory.with_name(str(other))
        argv = tuple(word.replace(str(request.mark), str(other)) for word in request.argv)
        return await super().submit(replace(request, mark=other, directory=directory, argv=argv), parcel)


@breaks(BackendLaws.test_a_new_object_on_the_same_manager_sees_the_same)
class RemembersWhatItSubmitted(LocalBackend):
    def __init__(self, home_id: str, config: LocalConfig) -> None:
        super().__init__(home_id, config)
        self.known: set[str] = set()

    async def submit(self, request: LocalRequest, parcel: Parcel) -> JobId:
        self.known.add(str(request.mark))
        return await super().submit(request, parcel)

    async def survey(self) -> Observation:
        seen = (await super().survey()).sightings
        return Observation(tuple(one for one in seen if one.job_id in self.known), complete=True)


@breaks(BackendLaws.test_the_jobs_of_another_home_are_not_ours)
class ShowsAllHomes(LocalBackend):
    def home(self, home_id: str) -> LocalBackend:
        return LocalBackend(home_id, LocalConfig(directory=self.directory))

    async def survey(self) -> Observation:
        marks = [Mark.parse(path.name) for path in self.directory.glob("elsewhere-*")]
        seen: list[Sighting] = []
        for home_id in sorted({mark.home_id for mark in marks if mark is not None} | {self.home_id}):
            backend = self.home(home_id)
            seen += (await backend.survey()).sightings
            await backend.close()
        return Observation(tuple(seen), complete=True)


@breaks(BackendLaws.test_questions_do_not_grow_with_kernels)
class AsksForEachJob(Sees):
    def tell(self, sighting: Sighting) -> Sighting:
        subprocess.run(["true"], check=True)
        return sighting


@breaks(BackendLaws.test_a_death_behind_our_back_is_seen_with_its_cause)
class KnowsNoCause(Sees):
    def tell(self, sighting: Sighting) -> Sighting:
        return replace(sighting, exit_code=None, reason=None)


@breaks(BackendLaws.test_a_manager_that_is_down_is_unreachable)
class SeesNothingWhereThereIsNoAnswer(LocalBackend):
    async def survey(self) -> Observation:
        try:
            return await super().survey()
        except Unreachable:
            return Observation((), complete=True)


@breaks(BackendLaws.test_watch_agrees_with_survey)
class WatchesTheFirstAnswer(LocalBackend):
    async def watch(self) -> AsyncGenerator[Observation]:
        first = await self.survey()
        while True:
            yield first
            await asyncio.sleep(0.1)


@breaks(BackendLaws.test_a_watch_of_its_own_begins_with_all_jobs)
class TellsOnlyWhatChanges(LocalBackend):
    async def watch(self) -> AsyncGenerator[Observation]:
        yield Observation((), complete=False)
        async for observation in super().watch():
            yield observation


@breaks(BackendLaws.test_cancel_ends_a_job_by_force_if_need_be)
class OnlyAsksPolitely(LocalBackend):
    async def cancel(self, job_id: JobId, *, grace: float) -> None:
        await super().cancel(job_id, grace=0 if grace == 0 else 600)


@breaks(BackendLaws.test_cancel_ends_a_job_by_force_if_need_be)
class KillsTheFirstProcessOnly(LocalBackend):
    async def cancel(self, job_id: JobId, *, grace: float) -> None:
        await self.signal(job_id, signal.SIGKILL)


@breaks(BackendLaws.test_cancel_may_be_repeated_and_an_unknown_job_is_no_error)
class WantsToKnowTheJob(LocalBackend):
    async def cancel(self, job_id: JobId, *, grace: float) -> None:
        if job_id not in {one.job_id for one in (await self.survey()).sightings}:
            raise Rejected("Invalid job id specified")
        await super().cancel(job_id, grace=grace)


@breaks(BackendLaws.test_a_signal_reaches_the_job)
class SendsAnotherSignal(LocalBackend):
    async def signal(self, job_id: JobId, signum: int) -> None:
        await super().signal(job_id, 0)


@breaks(BackendLaws.test_what_a_job_printed_can_be_read_until_it_is_discarded)
class TellsTheNewestFirst(LocalBackend):
    async def tail(self, job_id: JobId, lines: int) -> Sequence[str]:
        return (await super().tail(job_id, lines))[::-1]


@breaks(BackendLaws.test_closing_a_backend_leaves_its_jobs)
class EndsItsJobs(LocalBackend):
    async def close(self) -> None:
        for sighting in (await self.survey()).sightings if self.directory.exists() else ():
            if sighting.phase is not Phase.ENDED:
                await self.cancel(sighting.job_id, grace=0)
        await super().close()


@breaks(BackendLaws.test_nothing_blocks_the_loop)
class LooksForItself(LocalBackend):
    async def cancel(self, job_id: JobId, *, grace: float) -> None:
        time.sleep(0.001)
        await super().cancel(job_id, grace=grace)


LAWS = [name for name in vars(BackendLaws) if name.startswith("test_")]


def test_each_law_has_a_backend_that_breaks_it() -> None:
    assert {law for law, _ in BROKEN} == set(LAWS)


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Path]:
    """Where the jobs of one law are, and what a backend that is broken leaves of them is ended."""
    yield tmp_path / "jobs"
    await end_all(tmp_path / "jobs")
    assert zombies() == []


@pytest.mark.parametrize(("law", "backend"), BROKEN, ids=[backend.__name__ for _, backend in BROKEN])
async def test_a_law_finds_who_breaks_it(law: str, backend: type[LocalBackend], jobs: Path) -> None:
    subject = local_subject(jobs.parent, backend, PATIENCE)
    with pytest.raises((AssertionError, LawBroken, BlockingError, Rejected, pytest.fail.Exception)):
        async with open_lab(subject) as lab:
            await getattr(BackendLaws, law)(BackendLaws(), lab)
