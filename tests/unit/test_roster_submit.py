"""Handing jobs over: lost answers, bounded submits, and the time that a job may wait. In virtual time."""

from __future__ import annotations

import asyncio

import pytest
from roster_kit import home, mark, now

from elsewhere.errors import LaunchFailed
from elsewhere.roster import Stage
from elsewhere.testing.memory import MemoryManager

pytestmark = pytest.mark.looptime


async def test_an_answer_lost_after_submit_leads_to_no_second_job() -> None:
    manager = MemoryManager()
    manager.lose_answers = 1
    manager.lag = 5.0
    async with home(manager, interval=0.5) as it:
        entry = await it.submit()
        await asyncio.sleep(0.1)
        assert entry.phase is Stage.SUBMITTING
        assert entry.reason is not None
        assert "did not answer" in entry.reason
        await entry.until(Stage.RUNNING)
        await asyncio.sleep(60)
        assert len(manager.jobs) == 1


async def test_a_request_lost_is_submitted_again_once_absence_is_believed() -> None:
    manager = MemoryManager()
    manager.lose_requests = 2
    async with home(manager) as it:
        entry = await it.submit()
        await asyncio.sleep(5.9)
        assert not manager.jobs
        await entry.until(Stage.RUNNING)
        assert now() < 60
        assert [job.mark for job in manager.jobs.values()] == [mark()]


async def test_a_job_that_appears_while_the_second_submit_waits_calls_it_off() -> None:
    manager = MemoryManager()
    manager.lose_requests = 1
    async with home(manager, submits_at_once=1) as it:
        entry = await it.submit("a")
        await asyncio.sleep(1)
        manager.latency = 100.0
        slow = await it.submit("b")  # holds the only place
        await asyncio.sleep(1)
        manager.latency = 0.0
        await asyncio.sleep(20)
        assert entry.reason == "waiting for 1 other submit"
        manager.add(entry.mark)
        await entry.until(Stage.RUNNING)
        await slow.until(Stage.RUNNING)
        await asyncio.sleep(100)
        assert len(manager.live(entry.mark)) == 1


async def test_a_job_whose_agent_called_home_is_never_submitted_again() -> None:
    manager = MemoryManager()
    manager.lose_answers = 1
    manager.lag = 1e9
    async with home(manager) as it:
        entry = await it.submit()
        await asyncio.sleep(1)
        entry.agent_connected = True
        await asyncio.sleep(100)
        assert entry.phase is Stage.RUNNING
        entry.agent_connected = False
        await entry.until(Stage.ENDED)
        assert len(manager.jobs) == 1


async def test_a_rejection_ends_the_entry_with_the_managers_words() -> None:
    manager = MemoryManager()
    manager.rejects = "Invalid partition: gpuu"
    async with home(manager) as it:
        entry = await it.submit()
        with pytest.raises(LaunchFailed, match="Invalid partition: gpuu") as caught:
            await entry.running()
        assert caught.value.step == "submit"
        assert entry.phase is Stage.ENDED
        await it.roster.release(entry, grace=1)
        assert await entry.gone(timeout=0)
        assert not it.roster.entries


async def test_submits_are_bounded_and_those_waiting_say_for_how_many() -> None:
    manager = MemoryManager()
    manager.latency = 2.0
    async with home(manager, submits_at_once=3) as it:
        entries = [await it.submit(f"k{n}") for n in range(7)]
        await asyncio.sleep(0.1)
        assert [entry.reason for entry in entries[2:5]] == [
            None, "waiting for 3 other submits", "waiting for 4 other submits",
        ]  # fmt: skip
        await asyncio.sleep(2)
        assert entries[4].reason is None
        assert entries[6].reason == "waiting for 3 other submits"
        for entry in entries:
            await entry.until(Stage.RUNNING)
        assert manager.submits_at_most == 3


async def test_releasing_one_that_waits_never_asks_the_manager() -> None:
    manager = MemoryManager()
    manager.latency = 5.0
    async with home(manager, submits_at_once=1) as it:
        first, second = await it.submit("a"), await it.submit("b")
        await it.roster.release(second, grace=1)
        assert await second.gone(timeout=0.1)
        await first.until(Stage.RUNNING)
        assert len(manager.jobs) == 1


@pytest.mark.parametrize("fault", ["the answer is lost", "no id is given"])
async def test_once_a_job_is_seen_no_other_is_waited_for(fault: str) -> None:
    manager = MemoryManager()
    manager.lose_answers = int(fault == "the answer is lost")
    manager.gives_ids = fault != "no id is given"
    async with home(manager, interval=1) as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        await it.roster.release(entry, grace=1)
        assert await entry.gone(timeout=1.1)


@pytest.mark.parametrize("after", [0.0, 1.0, 3.0], ids=["before it began", "before it is done", "after"])
async def test_what_appears_of_a_cancelled_submit_is_cancelled(after: float) -> None:
    manager = MemoryManager()
    manager.latency = 4.0
    manager.lag = 5.0
    async with home(manager) as it:
        entry = await it.submit()
        if after:
            await asyncio.sleep(after)
        await it.roster.release(entry, grace=1)
        assert await entry.gone(timeout=60)
        assert not manager.live()
        assert len(manager.jobs) == (1 if after == 3.0 else 0)


async def test_the_queue_timeout_carries_the_managers_last_reason() -> None:
    async with home() as it:
        it.manager.runs_after = None
        entry = await it.submit(queue_timeout=30)
        await entry.until(Stage.QUEUED)
        job = it.job(entry)
        it.manager.wait(job, "Resources")
        with pytest.raises(LaunchFailed) as caught:
            await entry.running()
        assert now() == pytest.approx(30)
        assert (caught.value.step, caught.value.reason) == (
            "queue", "waited 30 s in the queue; the manager's last reason: Resources",
        )  # fmt: skip
        await asyncio.sleep(0.1)
        assert not job.live


async def test_the_queue_timeout_of_a_silent_manager_says_so_and_leaves_nothing() -> None:
    async with home() as it:
        it.manager.down = True
        entry = await it.submit(queue_timeout=30)
        await entry.until(Stage.ENDED)
        assert entry.reason == "waited 30 s in the queue; the manager has not answered for 30 s"
        it.manager.down = False
        it.manager.add(entry.mark)
        await asyncio.sleep(60)
        assert not it.manager.live()


@pytest.mark.parametrize("witness", ["manager", "agent"])
async def test_the_queue_timeout_is_over_once_it_runs(witness: str) -> None:
    async with home() as it:
        it.manager.runs_after = 5.0 if witness == "manager" else None
        entry = await it.submit(queue_timeout=10)
        await entry.until(Stage.QUEUED)
        if witness == "agent":
            entry.agent_connected = True
        await asyncio.sleep(50)
        assert entry.phase is Stage.RUNNING
