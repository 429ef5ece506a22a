"""What is unwanted, what is not ours, and the nearer witness. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from itertools import pairwise

import pytest
from roster_kit import home, mark, now

from elsewhere.backend import JobId, Phase, Sighting
from elsewhere.errors import LaunchFailed, Rejected
from elsewhere.roster import Stage
from elsewhere.testing.memory import MemoryManager

pytestmark = pytest.mark.looptime

# 4. What is not wanted and still seen is cancelled again.


async def test_release_cancels_with_the_grace_given_and_forgets_the_entry_when_it_is_gone() -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        at = now()
        await it.roster.release(entry, grace=7)
        assert it.roster.get("k", 1) is entry
        assert await entry.gone(timeout=10)
        assert entry.phase is Stage.ENDED
        [(asked, job_id, grace)] = it.manager.cancels
        assert (asked - at < 0.1, job_id, grace) == (True, entry.job_id, 7)
        assert it.roster.get("k", 1) is None
        await it.roster.release(entry, grace=7)
        assert len(it.manager.cancels) == 1


async def test_a_cancel_without_effect_is_asked_again_but_not_at_every_observation() -> None:
    async with home(cancel_again=10, interval=1) as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        it.manager.ignores_cancels = 3
        await it.roster.release(entry, grace=2)
        assert await entry.gone(timeout=100)
        asked = it.cancels_of(it.job(entry))
        assert len(asked) == 4
        assert all(10 <= later - earlier <= 11.1 for earlier, later in pairwise(asked))


async def test_a_cancel_is_not_asked_again_within_its_own_grace() -> None:
    async with home(cancel_again=10, interval=1) as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        it.manager.ignores_cancels = 1
        await it.roster.release(entry, grace=40)
        assert await entry.gone(timeout=100)
        first, second = it.cancels_of(it.job(entry))
        assert second - first >= 40


async def test_a_cancel_without_effect_is_asked_again_where_the_watch_only_tells_changes() -> None:
    async with home(push=True) as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        it.manager.ignores_cancels = 1
        await it.roster.release(entry, grace=1)
        assert await entry.gone(timeout=60)


async def test_a_second_release_with_less_grace_is_asked_at_once() -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        it.manager.ignores_cancels = 1
        await it.roster.release(entry, grace=60)
        await asyncio.sleep(1)
        await it.roster.release(entry, grace=60)
        await asyncio.sleep(1)
        assert len(it.manager.cancels) == 1
        await it.roster.release(entry, grace=0)
        await asyncio.sleep(0.1)
        assert [grace for _, _, grace in it.manager.cancels] == [60, 0]


async def test_less_grace_does_not_wait_for_the_answer_to_the_first_cancel() -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        it.manager.latency = 30.0
        await it.roster.release(entry, grace=60)
        await asyncio.sleep(1)
        await it.roster.release(entry, grace=0)
        await asyncio.sleep(1)
        assert [grace for _, _, grace in it.manager.cancels] == [60, 0]


async def test_a_cancel_that_gets_no_answer_is_tried_until_it_does() -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        it.manager.down = True
        await it.roster.release(entry, grace=1)
        assert not await entry.gone(timeout=100)
        tried = len(it.manager.cancels)
        assert 5 <= tried <= 15
        it.manager.down = False
        assert await entry.gone(timeout=35)
        assert not it.manager.live()


async def test_a_cancel_that_the_manager_refuses_is_asked_again_while_the_job_is_seen() -> None:
    async with home(interval=1) as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        refuse, it.manager.fault = Rejected("not now"), None
        await it.roster.release(entry, grace=1)
        it.manager.fault = refuse
        await asyncio.sleep(0.1)
        it.manager.fault = None
        assert await entry.gone(timeout=15)
        assert len(it.manager.cancels) == 2


async def test_what_the_manager_forgets_once_it_ended_is_gone_as_well() -> None:
    manager = MemoryManager()
    manager.forgets_ended = True
    async with home(manager, cancel_again=1.0) as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        await it.roster.release(entry, grace=1)
        assert await entry.gone(timeout=15)
        assert not it.roster.entries
        assert len(it.manager.cancels) == 1  # nothing was seen that would be cancelled again


async def test_cancels_run_side_by_side() -> None:
    async with home() as it:
        entries = [await it.submit(f"k{n}") for n in range(6)]
        for entry in entries:
            await entry.until(Stage.RUNNING)
        it.manager.latency = 5.0
        for entry in entries:
            await it.roster.release(entry, grace=1)
        await asyncio.sleep(5.1)
        assert not it.manager.live()


async def test_closing_waits_for_what_a_job_left_to_be_removed() -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        await it.roster.release(entry, grace=1)
        assert await entry.gone(timeout=10)
        assert it.manager.discards == []
        await it.roster.aclose()
        assert it.manager.discards == [entry.job_id]


async def test_what_a_job_left_is_discarded_once_and_only_after_release() -> None:
    async with home() as it:
        await it.submit("keeps-the-watch-up")
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        it.manager.end(it.job(entry), "done")
        await entry.until(Stage.ENDED)
        await asyncio.sleep(60)
        assert it.manager.discards == []
        await it.roster.release(entry, grace=1)
        await asyncio.sleep(60)
        assert it.manager.discards == [entry.job_id]


async def test_a_newer_launch_makes_the_older_unwanted() -> None:
    async with home() as it:
        older = await it.submit(launch=1)
        await older.until(Stage.RUNNING)
        newer = await it.submit(launch=2)
        assert not older.wanted
        assert await older.gone(timeout=10)
        await newer.until(Stage.RUNNING)
        await asyncio.sleep(30)
        assert [job.mark.launch for job in it.manager.live()] == [2]
        assert [entry.mark.launch for entry in it.roster.entries] == [2]


@pytest.mark.parametrize("orphan_grace", [None, 60.0])
async def test_a_stray_job_of_an_older_launch_is_cancelled_at_once(orphan_grace: float | None) -> None:
    async with home(orphan_grace=orphan_grace) as it:
        entry = await it.submit(launch=3)
        await entry.until(Stage.RUNNING)
        stray = it.manager.add(mark(launch=2))
        other = it.manager.add(mark("other", launch=2))
        await asyncio.sleep(4)
        assert not stray.live
        assert other.live
        assert entry.phase is Stage.RUNNING


async def test_what_was_released_and_comes_back_is_cancelled_even_by_a_provisioner_alone() -> None:
    async with home(orphan_grace=None) as it:
        await it.submit("keeps-the-watch-up")
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        await it.roster.release(entry, grace=1)
        await entry.gone()
        back = it.manager.add(entry.mark)
        await asyncio.sleep(4)
        assert not back.live


# 5. Only jobs with my home id are mine.


async def test_jobs_of_another_home_are_never_touched() -> None:
    async with home(orphan_grace=0.0) as it:
        theirs = it.manager.add(mark(home_id="home2"))
        await asyncio.sleep(100)
        assert theirs.live
        assert it.manager.cancels == []


async def test_a_gateway_cancels_its_orphans_after_the_grace() -> None:
    async with home(orphan_grace=60.0) as it:
        orphan = it.manager.add(mark("lost"))
        await asyncio.sleep(55)
        assert it.cancels_of(orphan) == []
        await asyncio.sleep(10)
        assert not orphan.live
        await asyncio.sleep(10)
        assert it.manager.discards == [orphan.job_id]


async def test_a_provisioner_alone_never_cancels_what_it_did_not_start() -> None:
    async with home(orphan_grace=None) as it:
        entry = await it.submit()
        stranger = it.manager.add(mark("stranger"))
        await asyncio.sleep(1000)
        assert stranger.live
        assert it.manager.cancels == []
        assert entry.stale_since is None


async def test_a_launch_of_an_earlier_life_is_adopted_and_not_submitted() -> None:
    async with home(orphan_grace=10.0) as it:
        job = it.manager.add(mark())
        await asyncio.sleep(5)
        entry = await it.roster.adopt(mark())
        assert await entry.until(Stage.RUNNING) is Stage.RUNNING
        lost = await it.roster.adopt(mark("lost"))
        await lost.until(Stage.ENDED)
        assert lost.reason == "the manager does not know the job"
        await asyncio.sleep(30)
        assert job.live
        assert len(it.manager.jobs) == 1


# The nearer witness outranks the manager.


async def test_a_connected_agent_is_a_kernel_that_runs_and_lives_whatever_the_manager_says() -> None:
    async with home(interval=60) as it:
        it.manager.runs_after = None
        entry = await it.submit()
        await entry.until(Stage.QUEUED)
        entry.agent_connected = True
        assert entry.phase is Stage.RUNNING
        job = it.job(entry)
        it.manager.says[job.job_id] = Sighting("k", 1, job.job_id, Phase.ENDED, reason="NODE_FAIL")
        await asyncio.sleep(600)
        assert (entry.phase, entry.manager_says) == (Stage.RUNNING, "NODE_FAIL")
        it.manager.forget(job)
        await asyncio.sleep(600)
        assert (entry.phase, entry.wanted) == (Stage.RUNNING, True)
        entry.agent_connected = False
        assert (entry.phase, entry.reason) == (Stage.ENDED, "NODE_FAIL")


async def test_absence_counts_only_from_when_the_agents_link_was_lost() -> None:
    async with home(interval=1) as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        entry.agent_connected = True
        it.manager.forget(it.job(entry))
        for _ in range(10):  # a link that is torn and dialled again is no death
            await asyncio.sleep(50)
            entry.agent_connected = False
            await asyncio.sleep(5)
            entry.agent_connected = True
        assert (entry.phase, it.manager.cancels) == (Stage.RUNNING, [])
        entry.agent_connected = False
        await entry.until(Stage.ENDED)


async def test_a_lost_link_alone_is_no_death() -> None:
    async with home() as it:
        entry = await it.submit()
        entry.agent_connected = True
        await asyncio.sleep(10)
        entry.agent_connected = False
        await asyncio.sleep(1000)
        assert entry.phase is Stage.RUNNING


async def test_the_agents_exit_report_is_final_and_its_job_may_end_by_itself() -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        entry.agent_connected = True
        entry.agent_exited("the kernel was killed by signal 9", -9)
        assert (entry.phase, entry.reason, entry.exit_code) == (
            Stage.ENDED, "the kernel was killed by signal 9", -9,
        )  # fmt: skip
        await asyncio.sleep(5)
        assert it.manager.cancels == []
        it.manager.end(it.job(entry), "COMPLETED", 0)
        assert await entry.gone(timeout=10)
        assert (entry.reason, it.manager.cancels) == ("the kernel was killed by signal 9", [])


async def test_a_job_that_stays_after_its_agents_exit_report_is_cancelled() -> None:
    async with home(cancel_again=10.0) as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        entry.agent_exited("over")
        assert await entry.gone(timeout=20)
        assert not it.manager.live()


async def test_a_connected_agents_job_is_cancelled_on_release_although_the_manager_says_it_ended() -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        entry.agent_connected = True
        job = it.job(entry)
        it.manager.says[job.job_id] = Sighting("k", 1, job.job_id, Phase.ENDED)
        await asyncio.sleep(10)
        await it.roster.release(entry, grace=1)
        assert await entry.gone(timeout=20)
        assert not job.live


# The same mark twice.


async def test_of_a_job_that_the_manager_ran_twice_the_second_is_shown_and_both_are_cancelled() -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        first = it.job(entry)
        second = it.manager.add(entry.mark, Phase.RUNNING)
        await asyncio.sleep(4)
        assert entry.job_id == second.job_id
        assert first.live
        assert second.live
        await it.roster.release(entry, grace=1)
        assert await entry.gone(timeout=10)
        assert not it.manager.live()
        await asyncio.sleep(1)
        assert sorted(it.manager.discards) == [first.job_id, second.job_id]


@pytest.mark.parametrize("ends", [0, 1])
async def test_of_two_jobs_with_one_mark_the_one_that_lives_keeps_the_entry_alive(ends: int) -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        jobs = [it.job(entry), it.manager.add(entry.mark, Phase.RUNNING)]
        it.manager.end(jobs[ends], "PREEMPTED")
        await asyncio.sleep(4)
        assert (entry.phase, entry.job_id) == (Stage.RUNNING, jobs[1 - ends].job_id)
        it.manager.end(jobs[1 - ends], "done")
        await entry.until(Stage.ENDED)
        assert entry.reason == "done"


# Memory.


async def test_nothing_grows_with_the_kernels_that_are_over() -> None:
    async with home(orphan_grace=60.0) as it:
        for n in range(50):
            entry = await it.submit(f"k{n}", queue_timeout=1000)
            await entry.until(Stage.RUNNING)
            await it.roster.release(entry, grace=0)
            await entry.gone()
        it.manager.jobs.clear()
        await asyncio.sleep(30)
        roster = it.roster
        kept: tuple[Sized, ...] = (
            roster._entries,
            roster._orders,
            roster._line,
            roster._submits,
            roster._timers,
        )
        assert [*map(len, kept), len(roster._strangers)] == [0] * 6
        assert len(roster._errands._cancels) == 0
        assert len(roster._tasks) == 2  # the watch, and its second look


async def test_the_secrets_are_dropped_as_soon_as_a_job_is_known() -> None:
    async with home() as it:
        entry = await it.submit()
        assert it.roster._orders
        await entry.until(Stage.RUNNING)
        assert not it.roster._orders


async def test_running_says_why_a_job_ended_before_it_ran() -> None:
    async with home() as it:
        it.manager.runs_after = None
        entry = await it.submit()
        await entry.until(Stage.QUEUED)
        it.manager.end(it.job(entry), "CANCELLED by root")
        with pytest.raises(LaunchFailed, match="CANCELLED by root") as caught:
            await entry.running()
        assert caught.value.step == "queue"
        assert now() < 10
        assert JobId("1") in it.manager.jobs
