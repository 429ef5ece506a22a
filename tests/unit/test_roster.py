"""The rules of the roster, each with the fault that would break it. In virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

import pytest
from roster_kit import PARCEL, home, launch_of, mark, now

from elsewhere.backend import Observation, Phase, Sighting
from elsewhere.errors import CoreClosed, Rejected, Unreachable
from elsewhere.roster import Roster, Stage
from elsewhere.testing.memory import MemoryBackend, MemoryConfig, MemoryManager

pytestmark = pytest.mark.looptime

# 1. A sighting is believed at once.


async def test_a_launch_is_queued_then_runs_then_ends_as_it_is_seen() -> None:
    async with home(MemoryManager()) as it:
        it.manager.runs_after = None
        entry = await it.submit()
        assert entry.phase is Stage.SUBMITTING
        await entry.until(Stage.QUEUED)
        it.manager.wait(it.job(entry), "Resources")
        await asyncio.sleep(3.1)
        assert (entry.phase, entry.reason) == (Stage.QUEUED, "Resources")
        it.manager.run(it.job(entry), host="n7")
        assert await entry.until(Stage.RUNNING) is Stage.RUNNING
        assert (entry.host, entry.reason) == ("n7", None)
        it.manager.end(it.job(entry), "OOMKilled", 137)
        await entry.until(Stage.ENDED)
        assert (entry.reason, entry.exit_code) == ("OOMKilled", 137)
        assert list(entry.steps) == ["asked", "submitted", "queued", "running", "ended"]
        assert entry.steps["ended"].loop == pytest.approx(now())


async def test_a_job_that_the_manager_queues_again_is_shown_as_queued() -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        it.manager.wait(it.job(entry), "BeginTime")
        await asyncio.sleep(3.1)
        assert (entry.phase, entry.reason) == (Stage.QUEUED, "BeginTime")


async def test_a_sighting_is_believed_before_the_submit_has_answered() -> None:
    manager = MemoryManager()
    manager.latency = 20.0
    async with home(manager, interval=1.0) as it:
        entry = await it.submit()
        manager.latency = 0.1
        await asyncio.sleep(22)  # the first survey was asked at 0, and is over; the submit still has none
        manager.latency = 0.0
        assert entry.phase is Stage.RUNNING
        assert len(manager.jobs) == 1


async def test_without_an_id_from_submit_the_first_sighting_brings_it() -> None:
    manager = MemoryManager()
    manager.gives_ids = False
    async with home(manager) as it:
        entry = await it.submit()
        await entry.until(Stage.QUEUED)
        assert entry.job_id is None
        await entry.until(Stage.RUNNING)
        assert entry.job_id in manager.jobs


async def test_an_end_without_a_reason_still_says_something() -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        it.manager.end(it.job(entry), exit_code=3)
        await entry.until(Stage.ENDED)
        assert entry.reason == "the job ended with exit code 3"


# 2. Silence proves nothing.


async def test_while_the_manager_is_down_only_staleness_changes() -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        await asyncio.sleep(1)
        last_answer = now() - 1
        it.manager.down = True
        await asyncio.sleep(1000)
        assert entry.phase is Stage.RUNNING
        assert entry.stale_since == pytest.approx(last_answer, abs=3.1)
        it.manager.down = False
        await asyncio.sleep(31)
        assert entry.stale_since is None
        assert entry.phase is Stage.RUNNING


async def test_time_in_which_the_manager_was_silent_does_not_settle_anything() -> None:
    """Managers that come back may list nothing at first: an outage begins the reckoning anew."""
    manager = MemoryManager()
    manager.amnesia = 5.5
    async with home(manager, interval=1.0) as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        for outage in range(30, 60):
            manager.down = True
            await asyncio.sleep(outage)
            manager.down = False
            await asyncio.sleep(60)
        assert entry.phase is Stage.RUNNING


async def test_a_silent_manager_is_asked_ever_less_often_and_then_again() -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        it.manager.down = True
        await asyncio.sleep(100)
        before = it.manager.surveys
        await asyncio.sleep(600)
        assert 20 <= it.manager.surveys - before <= 41  # each 15 to 30 s
        it.manager.down = False
        await asyncio.sleep(31)
        before = it.manager.surveys
        await asyncio.sleep(30)
        assert 9 <= it.manager.surveys - before <= 11
        it.manager.down = True
        await asyncio.sleep(4)
        it.manager.down = False
        await asyncio.sleep(4)
        assert entry.stale_since is None  # pauses are short again


async def test_a_submit_that_is_answered_ends_the_pause_after_silence() -> None:
    async with home() as it:
        it.manager.down = True
        first = await it.submit("a")
        await asyncio.sleep(200)
        assert first.reason is not None
        assert "did not answer" in first.reason
        it.manager.down = False
        second = await it.submit("b")
        await second.until(Stage.QUEUED)
        at = now()
        await second.until(Stage.RUNNING)
        assert now() - at < 1.0


async def test_a_fault_in_the_backend_is_logged_and_taken_for_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        it.manager.fault = ZeroDivisionError("a bug")
        with caplog.at_level(logging.ERROR):
            await asyncio.sleep(10)
        assert "Traceback" in caplog.text
        assert "a bug" in caplog.text
        assert entry.phase is Stage.RUNNING
        assert entry.stale_since is not None
        it.manager.fault = None
        it.manager.end(it.job(entry))
        await entry.until(Stage.ENDED)


async def test_a_survey_that_is_refused_is_told_in_one_line_and_taken_for_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        it.manager.fault = Rejected("not for you")
        await asyncio.sleep(10)
        assert "not for you" in caplog.text
        assert "Traceback" not in caplog.text
        assert entry.phase is Stage.RUNNING
        assert entry.stale_since is not None


async def test_a_watch_that_stops_is_called_anew() -> None:
    class Stops(MemoryBackend):
        async def watch(self) -> AsyncGenerator[Observation]:
            yield await self.survey()

    backend = Stops("home1", MemoryConfig())
    async with Roster(backend) as roster:
        one = launch_of(mark())
        entry = await roster.submit(one, backend.render(one), PARCEL)
        await entry.until(Stage.RUNNING)
        before = backend.manager.surveys
        await asyncio.sleep(30)
        assert 9 <= backend.manager.surveys - before <= 11


# 3. Absence is believed after a settling time and two complete observations in a row.


@pytest.mark.parametrize(
    ("interval", "earliest", "latest"), [(0.5, 6.0, 7.1), (3.0, 6.0, 12.0), (20.0, 20, 60)]
)
async def test_a_vanished_job_is_believed_gone(interval: float, earliest: float, latest: float) -> None:
    async with home(interval=interval) as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        seen = now()
        it.manager.forget(it.job(entry))
        await entry.until(Stage.ENDED)
        assert entry.reason == "the manager no longer knows the job"
        assert earliest <= now() - seen <= latest


async def test_one_observation_without_it_is_not_enough_however_long_ago_it_was_seen() -> None:
    async with home(interval=20.0) as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        await asyncio.sleep(5)
        for _ in range(10):
            it.manager.omit = 1
            await asyncio.sleep(40)
        assert entry.phase is Stage.RUNNING


async def test_many_observations_without_it_are_not_enough_before_the_settling_time() -> None:
    manager = MemoryManager()
    manager.lag = 5.9
    manager.gives_ids = False
    async with home(manager, interval=0.1) as it:
        entry = await it.submit()
        await asyncio.sleep(10)
        assert entry.phase is Stage.RUNNING
        assert len(manager.jobs) == 1


async def test_an_observation_asked_before_the_submit_returned_does_not_count() -> None:
    """A slow survey, asked before there was a job, arrives after it: it says nothing about it."""
    manager = MemoryManager()
    async with home(manager, interval=10.0, settle=0.0) as it:
        first = await it.submit("a")
        await first.until(Stage.RUNNING)
        manager.latency = 5.0
        await asyncio.sleep(12)  # now a slow survey is under way
        manager.latency = 0.0
        entry = await it.submit("b")
        await entry.until(Stage.QUEUED)
        manager.omit = 1  # with the stale one that would be two
        await asyncio.sleep(40)
        assert entry.phase is Stage.RUNNING
        assert len(manager.jobs) == 2


async def test_an_outage_between_two_observations_breaks_the_row() -> None:
    async with home(interval=10.0, settle=0.0) as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        it.manager.omit = 1
        await asyncio.sleep(10)
        it.manager.down = True
        await asyncio.sleep(10)
        it.manager.down = False
        it.manager.omit = 1
        await asyncio.sleep(60)
        assert entry.phase is Stage.RUNNING


async def test_a_change_alone_says_nothing_of_the_others() -> None:
    async with home(push=True, settle=1000.0) as it:
        entry = await it.submit("a")
        await entry.until(Stage.RUNNING)
        for n in range(5):
            await it.submit(f"b{n}")
            await asyncio.sleep(300)
        assert entry.phase is Stage.RUNNING


@pytest.mark.parametrize("gives_ids", [True, False])
async def test_an_accepted_job_that_never_shows_ends_the_entry_and_is_not_submitted_again(
    gives_ids: bool,
) -> None:
    manager = MemoryManager()
    manager.gives_ids = gives_ids
    manager.lag = 1e9
    async with home(manager) as it:
        entry = await it.submit()
        await asyncio.sleep(15)
        assert entry.phase is Stage.ENDED
        assert entry.reason == "the manager no longer knows the job"
        assert len(manager.jobs) == 1


# Waiting, resting, closing.


async def test_several_may_wait_for_one_entry() -> None:
    async with home() as it:
        entry = await it.submit()

        async def phases() -> list[Stage]:
            return [seen.phase async for seen in entry.changes()]

        waiters = [asyncio.create_task(phases()) for _ in range(3)]
        impatient = asyncio.create_task(entry.gone(timeout=1))
        await entry.until(Stage.RUNNING)
        assert await impatient is False
        it.manager.end(it.job(entry))
        for told in await asyncio.gather(*waiters):
            assert told[-1] is Stage.ENDED
            assert Stage.RUNNING in told


async def test_with_nothing_to_know_the_manager_is_not_asked() -> None:
    async with home() as it:
        await asyncio.sleep(100)
        assert it.manager.surveys == 0
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        await it.roster.release(entry, grace=1)
        await entry.gone()
        await asyncio.sleep(3)
        before = it.manager.surveys
        await asyncio.sleep(100)
        assert it.manager.surveys == before
        again = await it.submit("b")
        await again.until(Stage.RUNNING)
        assert now() < 220


async def test_closing_wakes_who_waits_and_leaves_jobs_and_no_task() -> None:
    manager = MemoryManager()
    async with home(manager) as it:
        entry = await it.submit("a")
        await entry.until(Stage.RUNNING)
        waiter = asyncio.create_task(entry.until(Stage.ENDED))
        released = await it.submit("b")
        await released.until(Stage.RUNNING)
        manager.latency = 1000.0
        slow = await it.submit("c", queue_timeout=5)
        await it.roster.release(released, grace=1)
        await asyncio.sleep(1)
        assert slow.phase is Stage.SUBMITTING
    with pytest.raises(CoreClosed):
        await waiter
    with pytest.raises(CoreClosed):
        await it.submit("d")
    assert len(manager.live(entry.mark)) == 1
    asked = len(manager.cancels)
    await it.roster.release(entry, grace=1)
    entry.agent_connected = True
    await asyncio.sleep(0)
    assert len(manager.cancels) == asked


async def test_what_is_not_ours_to_submit_is_refused() -> None:
    async with home() as it:
        await it.submit()
        with pytest.raises(ValueError, match="known already"):
            await it.submit()
        foreign = launch_of(mark(home_id="other"))
        with pytest.raises(ValueError, match="not of home home1"):
            await it.roster.submit(foreign, it.roster.backend.render(foreign), PARCEL)


async def test_a_push_watch_that_says_nothing_is_helped_by_a_survey() -> None:
    """A lost answer, and a watch that would tell of the job only if there were one."""
    manager = MemoryManager()
    manager.lose_requests = 1
    async with home(manager, push=True) as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        assert now() < 60
        before = manager.surveys
        await asyncio.sleep(1000)
        assert manager.surveys == before  # nothing in doubt: the watch suffices
        manager.end(it.job(entry), "done")
        await entry.until(Stage.ENDED)
        assert entry.reason == "done"


async def test_an_end_that_a_push_watch_missed_in_an_outage_is_learned_by_a_survey() -> None:
    manager = MemoryManager()
    manager.amnesia = 4.5  # the first list after the outage, which the new watch begins with, is empty
    manager.forgets_ended = True
    async with home(manager, push=True) as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        manager.down = True
        manager.end(it.job(entry))
        await asyncio.sleep(0.1)
        manager.down = False
        await asyncio.sleep(60)
        assert entry.phase is Stage.ENDED


async def test_one_survey_that_misses_a_job_is_followed_by_another() -> None:
    async with home(push=True) as it:
        entry, other = await it.submit("a"), await it.submit("b")
        await other.until(Stage.RUNNING)
        await asyncio.sleep(100)
        it.manager.forget(it.job(entry))  # and the watch does not tell
        other.agent_connected = True
        other.agent_connected = False  # one survey is enough to find it well
        await asyncio.sleep(100)
        assert (entry.phase, other.phase) == (Stage.ENDED, Stage.RUNNING)


async def test_a_lie_of_the_manager_is_only_as_good_as_its_next_word() -> None:
    """An entry that ended stays ended: what is seen of it later is unwanted."""
    async with home() as it:
        await it.submit("another")
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        job = it.job(entry)
        it.manager.says[job.job_id] = Sighting("k", 1, job.job_id, Phase.ENDED, reason="NODE_FAIL")
        await entry.until(Stage.ENDED)
        it.manager.says.clear()
        await asyncio.sleep(4)
        assert (entry.phase, entry.reason) == (Stage.ENDED, "NODE_FAIL")
        assert not job.live


def test_unreachable_is_what_the_memory_manager_raises_when_down() -> None:
    async def ask() -> None:
        manager = MemoryManager()
        manager.down = True
        with pytest.raises(Unreachable):
            await manager.survey("home1")

    asyncio.run(ask())
