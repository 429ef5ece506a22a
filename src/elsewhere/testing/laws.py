"""The laws that every backend keeps. An author subclasses the class, says what is to be tried, runs pytest.

    @pytest.fixture
    def subject() -> Subject:
        return Subject(MyBackend, {"url": "http://localhost:8000"})

    class TestMine(BackendLaws): ...

Jobs of these laws run a probe instead of an agent. It calls the law and is the witness of what really
happens: the backend is never asked about itself. The laws with real kernels are in ``kernel_laws.py``.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio
from blockbuster import blockbuster_ctx
from pydantic import ValidationError

from elsewhere.backend import Backend, JobId, Logs, Observation, Phase, Sighting, Signals
from elsewhere.errors import Rejected, Unreachable
from elsewhere.roster import Roster, Stage
from elsewhere.testing.lab import Lab, LosesAnAnswer, is_of, marks_of, open_lab
from elsewhere.testing.questions import questions
from elsewhere.testing.subject import Subject
from elsewhere.testing.texts import spellings, text_of
from elsewhere.testing.witness import LawBroken

AWKWARD = 'it\'s "two" words\n$(touch x)`id`;%s %d\\ 🐍 ü'
LONG = "x" * 32_000
MANY = 8
UNKNOWN = JobId("4711-nobody-submitted-this")


@pytest.mark.asyncio(loop_scope="function")
class BackendLaws:
    """One method is one law; what its docstring says must hold for any job of any home."""

    @pytest_asyncio.fixture(loop_scope="function")
    async def lab(self, subject: Subject) -> AsyncIterator[Lab]:
        """The place where a law is tried; nothing is left in it at the end."""
        async with open_lab(subject) as lab:
            yield lab

    # Render.

    async def test_render_is_pure_and_names_home_kernel_and_launch(self, lab: Lab) -> None:
        """The same launch renders to the same request, another to another; the mark is stamped on it."""
        launch = lab.launch("kernel-x", 4711)
        with questions() as asked:
            request = lab.backend.render(launch)
        assert asked.count == 0, "render asked somebody"
        assert text_of(request) == text_of(lab.backend.render(launch)), "the same launch, another request"
        for another in (lab.launch("kernel-y", 4711), lab.launch("kernel-x", 4712)):
            different = text_of(request) != text_of(lab.backend.render(another))
            assert different, "the mark is not whole in the request: stamp str(launch.mark) on it"
        for word in (lab.home_id, "kernel-x", "4711"):
            assert word in text_of(request), f"the request does not name {word}: stamp str(launch.mark) on it"

    async def test_no_secret_is_shown(self, lab: Lab) -> None:
        """What parcel and order hold is in no request, argv, environment, label, sighting or open file."""
        launch = lab.launch("k")
        request = lab.backend.render(launch)
        submitted, job_id, probe = await lab.running("k")
        shown = {
            "the request": text_of(request),
            "an argv or environment in the job": "\n".join(probe.shown),
            "a sighting": text_of(await lab.look(submitted.mark)),
        }
        if lab.subject.exposed is not None:
            shown["what the manager shows to others"] = await lab.subject.exposed(job_id)
        assert not probe.open_to_others, "other users can read the parcel: write it with mode 0600"
        for where, text in shown.items():
            assert not any(canary in text for canary in spellings(lab.canary)), f"a secret is in {where}"

    # Submit.

    async def test_a_submitted_job_is_seen_with_its_id_and_host(self, lab: Lab) -> None:
        """A survey shows it under its kernel id and launch, with the id that submit gave, and its host."""
        submitted, job_id, _ = await lab.running("k", number=3)
        sighting = await lab.look(submitted.mark)
        assert sighting is not None
        assert sighting.host, "a job that runs is seen without its host"
        assert submitted.job_id in (None, job_id), "submit and survey call it by different ids"

    async def test_a_parcel_arrives_whole(self, lab: Lab) -> None:
        """The job is handed the parcel byte by byte, whatever its length."""
        submitted = await lab.submit()
        probe = await lab.witness.probe(submitted.mark)
        assert probe.digest == hashlib.sha256(submitted.parcel.content).hexdigest()

    async def test_awkward_words_are_only_words(self, lab: Lab) -> None:
        """Quotes, newlines and $(…) in names are but names: no shell and no template reads them."""
        for kernel_id, username, kernel_name in (("k", AWKWARD, AWKWARD), ("K._-" + "9" * 60, LONG, "-rf")):
            submitted = await lab.submit(kernel_id, username=username, kernel_name=kernel_name)
            await lab.witness.probe(submitted.mark)

    async def test_many_submits_at_once_are_many_jobs(self, lab: Lab) -> None:
        """Submits do not disturb each other, and one survey shows all jobs."""
        jobs = await asyncio.gather(*(lab.submit(f"k{n}") for n in range(MANY)))
        for job in jobs:
            await lab.witness.probe(job.mark)
        seen = [await lab.seen(job.mark, Phase.RUNNING) for job in jobs]
        assert len({one.job_id for one in seen}) == MANY
        assert len(await lab.sightings()) == MANY

    async def test_what_is_impossible_is_rejected_in_the_managers_words(self, lab: Lab) -> None:
        """A no is Rejected, and says why; nothing is left of it."""
        if lab.subject.impossible is None:
            pytest.skip("say what options this manager refuses: `impossible` (--impossible KEY=VALUE)")
        try:
            launch = lab.launch("k", **lab.subject.impossible)
        except ValidationError as wrong:
            raise LawBroken(f"`impossible` must be options of this backend: {wrong}") from wrong
        error = await error_of(lab.backend.submit(lab.backend.render(launch), lab.parcel(launch)))
        assert isinstance(error, Rejected), f"a no must be Rejected: {error or 'it returned'!r}"
        assert str(error).strip(), "Rejected, but not why"

    async def test_a_cancelled_submit_leaves_nothing_or_what_the_next_survey_shows(self, lab: Lab) -> None:
        """Whenever a submit is interrupted: what may still run is seen by a survey that begins after it."""
        marks = []
        for n in range(MANY):
            launch = lab.launch(f"k{n}")
            marks.append(launch.mark)
            submit = lab.backend.submit(lab.backend.render(launch), lab.parcel(launch))
            task = asyncio.ensure_future(submit)
            for _ in range(n):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        shown = marks_of(lab.home_id, await lab.sightings())
        later, _, _ = await lab.running("later")
        ran = {probe.mark for probe in lab.witness.probes} - {later.mark}
        assert ran <= set(shown), "a job runs whose submit was cancelled, and the next survey did not show it"

    async def test_a_lost_answer_brings_no_second_job(self, lab: Lab) -> None:
        """A job is known by its mark: who never heard the answer finds it in the next survey."""
        assert await lab.sightings() == ()
        home = LosesAnAnswer(lab.backend)
        launch = lab.launch("k")
        async with Roster(home) as roster:
            entry = await roster.submit(launch, home.render(launch), lab.parcel(launch))

            async def known_or_doubled() -> bool:
                return entry.phase is Stage.RUNNING or len(lab.witness.of(launch.mark)) > 1

            await lab.until(
                known_or_doubled, lambda: "the job is found by its mark, and none submitted again"
            )
            assert len(lab.witness.of(launch.mark)) == 1, "a second job was submitted for one launch"

    # Survey and watch.

    async def test_a_new_object_on_the_same_manager_sees_the_same(self, lab: Lab) -> None:
        """A backend remembers nothing: a later process sees, and ends, what an earlier one submitted."""
        submitted, job_id, _ = await lab.running()
        another = lab.another()
        assert await lab.look(submitted.mark, another) == await lab.look(submitted.mark)
        await another.cancel(job_id, grace=0)
        await lab.over(submitted.mark)

    async def test_the_jobs_of_another_home_are_not_ours(self, lab: Lab) -> None:
        """Homes that share a manager do not see each other's jobs, not even those of the same kernel id."""
        stranger = lab.another(lab.home_id + "0")
        theirs, _, _ = await lab.running("k", backend=stranger)
        assert await lab.sightings() == ()
        ours, job_id, _ = await lab.running("k")
        assert marks_of(lab.home_id, await lab.sightings()) == [ours.mark]
        await lab.backend.cancel(job_id, grace=0)
        await lab.over(ours.mark)
        assert lab.witness.of(theirs.mark, alive=True), "the end of our job was the end of another home's"

    async def test_questions_do_not_grow_with_kernels(self, lab: Lab) -> None:
        """A survey of many jobs asks the manager no more often than one of a single job."""
        await lab.running("first")
        with questions() as for_one:
            await lab.sightings()
        for n in range(MANY):
            await lab.submit(f"k{n}")
        with questions() as for_many:
            await lab.sightings()
        assert for_many.count < for_one.count + MANY, (
            f"{for_one.count} questions for one job, {for_many.count} for {MANY + 1}"
        )

    async def test_a_death_behind_our_back_is_seen_with_its_cause(self, lab: Lab) -> None:
        """A job that exits, or is killed by another hand, is seen as ended, with exit code or reason."""
        exits, _, leaver = await lab.running("exits")
        killed, _, victim = await lab.running("killed")
        leaver.order(exit=3)
        victim.order(kill=int(signal.SIGKILL))
        for mark, codes in ((exits.mark, (3,)), (killed.mark, (-9, 137))):
            sighting = await lab.seen(mark, Phase.ENDED)
            assert sighting.exit_code is not None or sighting.reason, f"ended, but not why: {sighting}"
            assert sighting.exit_code in (None, *codes), f"another exit code than {codes}: {sighting}"

    async def test_a_manager_that_is_down_is_unreachable(self, lab: Lab) -> None:
        """No answer is Unreachable, never an empty observation; once it is up, all is seen as before."""
        if lab.subject.down is not None:
            submitted, job_id, _ = await lab.running()
            async with lab.subject.down():
                await _unreachable(lab.backend)
            seen = await lab.seen(submitted.mark, Phase.RUNNING)
            assert seen.job_id == job_id
        elif lab.subject.unreachable is not None:
            backend = lab.another(**lab.subject.unreachable)
            await _unreachable(backend)
            launch = lab.launch("k")
            error = await error_of(backend.submit(backend.render(launch), lab.parcel(launch)))
            assert isinstance(error, Unreachable), (
                f"a submit without an answer must be Unreachable: {error!r}"
            )
        else:
            pytest.skip(
                "say where no manager answers: `unreachable` (--unreachable KEY=VALUE), or how: `down`"
            )

    async def test_watch_agrees_with_survey(self, lab: Lab) -> None:
        """What a watch yields is what surveys show: a job that comes, that runs, and that ends."""
        seen: dict[JobId, Sighting] = {}
        async with aclosing(lab.backend.watch()) as observations:
            await _watch_until(lab, observations, seen, lambda: True)
            submitted, _, probe = await lab.running()

            def has_phase(phase: Phase) -> bool:
                return any(is_of(one, submitted.mark) and one.phase is phase for one in seen.values())

            await _watch_until(lab, observations, seen, lambda: has_phase(Phase.RUNNING))
            assert seen == {one.job_id: one for one in await lab.sightings()}
            probe.order(exit=3)
            await lab.seen(submitted.mark, Phase.ENDED)
            await _watch_until(lab, observations, seen, lambda: has_phase(Phase.ENDED))
            assert seen == {one.job_id: one for one in await lab.sightings()}

    async def test_a_watch_of_its_own_begins_with_all_jobs(self, lab: Lab) -> None:
        """Where the backend overrides ``watch``: it yields all first, for it may have broken off."""
        if type(lab.backend).watch is Backend.watch:
            pytest.skip("this backend's watch is the plain one")
        submitted, job_id, _ = await lab.running()
        async with aclosing(lab.backend.watch()) as observations:
            first = await asyncio.wait_for(anext(observations), lab.subject.patience)
        assert first.complete, "the first observation of a watch must be all jobs of the home"
        assert [one.job_id for one in first.sightings if is_of(one, submitted.mark)] == [job_id]

    # Cancel.

    async def test_cancel_ends_a_job_by_force_if_need_be(self, lab: Lab) -> None:
        """A job that hears no SIGTERM is killed after the grace, and its child with it."""
        submitted, job_id, _ = await lab.running(stubborn=True)
        await lab.backend.cancel(job_id, grace=0.5)
        await lab.over(submitted.mark)

    async def test_cancel_may_be_repeated_and_an_unknown_job_is_no_error(self, lab: Lab) -> None:
        """Who cancels need not know whether the job is over, was cancelled before, or ever was."""
        submitted, job_id, _ = await lab.running()
        await lab.backend.cancel(job_id, grace=10)
        await lab.backend.cancel(job_id, grace=0)
        await lab.over(submitted.mark)
        await lab.backend.cancel(job_id, grace=0)
        for unknown in (UNKNOWN, JobId("0"), JobId("../x"), JobId(AWKWARD)):
            await lab.backend.cancel(unknown, grace=0)

    async def test_a_job_can_be_cancelled_before_it_runs(self, lab: Lab) -> None:
        """A cancel that follows a submit at once is not lost, wherever the job is by then."""
        submitted = await lab.submit()
        job_id = submitted.job_id or (await lab.first_seen(submitted.mark)).job_id
        await lab.backend.cancel(job_id, grace=0)
        later, _, _ = await lab.running("later")
        await lab.over(submitted.mark)
        assert lab.witness.of(later.mark, alive=True), "another job was ended than the one that was meant"

    # What a backend may be able to do besides.

    async def test_a_signal_reaches_the_job(self, lab: Lab) -> None:
        """Where the backend has ``signal``: it arrives; for a job that is over or unknown, no error."""
        if not isinstance(lab.backend, Signals):
            pytest.skip("this backend sends no signals")
        submitted, job_id, probe = await lab.running()
        await lab.backend.signal(job_id, signal.SIGUSR1)
        await lab.witness.until(lambda: probe.signals == [signal.SIGUSR1], "the job hears SIGUSR1, once")
        probe.order(exit=0)
        await lab.over(submitted.mark)
        await lab.backend.signal(job_id, signal.SIGUSR1)
        await lab.backend.signal(UNKNOWN, signal.SIGUSR1)

    async def test_what_a_job_printed_can_be_read_until_it_is_discarded(self, lab: Lab) -> None:
        """Where the backend keeps logs: the last lines, oldest first, until an ended job is discarded."""
        backend = lab.backend
        if not isinstance(backend, Logs):
            pytest.skip("this backend keeps no logs")
        submitted, job_id, probe = await lab.running()
        lines = ["one", AWKWARD.replace("\n", " "), "three"]
        probe.order(print=lines)
        await lab.witness.until(lambda: probe.done == 1, "the job has printed")

        async def told() -> bool:
            return list(await backend.tail(job_id, 3)) == lines

        await lab.until(told, lambda: "tail returns the last lines that the job printed, oldest first")
        assert list(await backend.tail(job_id, 2)) == lines[-2:]
        assert list(await backend.tail(job_id, 0)) == []
        assert list(await backend.tail(UNKNOWN, 3)) == []
        await backend.discard(job_id)
        assert list(await backend.tail(job_id, 3)) == lines, "a job that runs was discarded"
        probe.order(exit=0)
        await lab.over(submitted.mark)
        await lab.seen(submitted.mark, Phase.ENDED)
        assert list(await backend.tail(job_id, 3)) == lines, "the log of an ended job is gone"
        await backend.discard(job_id)
        await backend.discard(job_id)
        await backend.discard(UNKNOWN)
        assert list(await backend.tail(job_id, 3)) == []

    async def test_closing_a_backend_leaves_its_jobs(self, lab: Lab) -> None:
        """``close`` lets go of connections, not of jobs, and may be called twice."""
        another = lab.another()
        submitted, _, _ = await lab.running(backend=another)
        await another.close()
        await another.close()
        await lab.seen(submitted.mark, Phase.RUNNING)
        assert lab.witness.of(submitted.mark, alive=True)

    # And all of it.

    async def test_nothing_blocks_the_loop(self, lab: Lab) -> None:
        """No method sleeps, reads, connects or waits on the event loop's thread (blockbuster looks)."""
        await self._use_everything(lab, "warm-up")  # what is imported or read only once may take its time
        with blockbuster_ctx():
            await self._use_everything(lab, "k")

    async def _use_everything(self, lab: Lab, kernel_id: str) -> None:
        backend = lab.backend
        submitted, job_id, _ = await lab.running(kernel_id)
        async with aclosing(backend.watch()) as observations:
            await anext(observations)
        if isinstance(backend, Signals):
            await backend.signal(job_id, signal.SIGUSR1)
        if isinstance(backend, Logs):
            await backend.tail(job_id, 10)
        await backend.cancel(job_id, grace=10)
        await backend.cancel(job_id, grace=0)
        await lab.over(submitted.mark)
        if isinstance(backend, Logs):
            await backend.discard(job_id)


async def error_of(work: Awaitable[object]) -> Exception | None:
    """Return what it raises, or None; what is not written yet is no error of the backend."""
    try:
        await work
    except NotImplementedError:
        raise
    except Exception as error:
        return error
    return None


async def _unreachable(backend: Backend[Any, Any]) -> None:
    error = await error_of(backend.survey())
    assert isinstance(error, Unreachable), f"no answer must be Unreachable: {error or 'it returned'!r}"
    assert str(error).strip(), "Unreachable, but not why"


async def _watch_until(
    lab: Lab, observations: AsyncIterator[Observation], seen: dict[JobId, Sighting], holds: Callable[[], bool]
) -> None:
    """Take in what is yielded, one observation at least, until it holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + lab.subject.patience
    while True:
        try:
            observation = await asyncio.wait_for(anext(observations), deadline - loop.time())
        except asyncio.TimeoutError as error:
            raise LawBroken(f"watch did not tell it; what it told last: {seen}") from error
        if observation.complete:
            seen.clear()
        seen.update({sighting.job_id: sighting for sighting in observation.sightings})
        if holds():
            return
