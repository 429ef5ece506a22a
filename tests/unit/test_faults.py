"""The named faults: each begins, each can be lifted, and the manager is honest again. In virtual time."""

from __future__ import annotations

import asyncio

import pytest
from roster_kit import PARCEL, home, launch_of, mark

from elsewhere.backend import Phase
from elsewhere.errors import BackendError
from elsewhere.roster import Stage
from elsewhere.testing import faults
from elsewhere.testing.faults import FAULTS, Event, Fault, lift_all
from elsewhere.testing.memory import MemoryBackend, MemoryConfig, MemoryManager

pytestmark = pytest.mark.looptime


def test_every_fault_is_among_the_faults() -> None:
    every = {
        one
        for one in vars(faults).values()
        if isinstance(one, type) and issubclass(one, Fault) and one not in (Fault, Event)
    }
    assert {type(fault) for fault in FAULTS} == every


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_a_manager_is_honest_again_when_a_fault_is_over(fault: Fault) -> None:
    manager = MemoryManager()
    backend = MemoryBackend("home1", MemoryConfig(), manager)
    job = manager.add(mark(), Phase.RUNNING)
    with fault.on(manager):
        await asyncio.sleep(1)
    lift_all(manager)
    ours = [one.sighting() for one in manager.jobs.values() if one.mark.home_id == "home1"]
    assert list((await backend.survey()).sightings) == ours
    launch = launch_of(mark("another"))
    job_id = await backend.submit(backend.render(launch), PARCEL)
    assert job_id is not None
    assert manager.jobs[job_id].mark == launch.mark
    await backend.cancel(job.job_id, grace=0)
    assert not job.live


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if not isinstance(fault, Event)], ids=str)
async def test_a_fault_is_seen_by_who_asks_while_it_lasts(fault: Fault) -> None:
    """Of the same questions to an honest manager, at least one is answered otherwise or later."""
    assert await _answers(fault) != await _answers(None)


async def _answers(fault: Fault | None) -> list[object]:
    loop = asyncio.get_running_loop()
    manager = MemoryManager()
    manager.runs_after = None
    backend = MemoryBackend("home1", MemoryConfig(), manager)
    waits, runs = manager.add(mark("waits")), manager.add(mark("runs"), Phase.RUNNING)
    began, answers = loop.time(), list[object]()
    if fault is not None:
        fault.begin(manager)
    if isinstance(fault, faults.StartsEmptyAfterAnOutage):
        with faults.FallsSilent().on(manager):
            await asyncio.sleep(1)
    launch = launch_of(mark())
    for question in (
        lambda: manager.survey("home1"),
        lambda: backend.submit(backend.render(launch), PARCEL),
        lambda: manager.survey("home1"),
        lambda: backend.cancel(runs.job_id, grace=0),
        lambda: backend.cancel(waits.job_id, grace=0),
        lambda: manager.survey("home1"),
    ):
        try:
            answers.append(await question())
        except (BackendError, RuntimeError) as error:
            answers.append(str(error))
    return [*answers, loop.time() - began, len(manager.live())]


async def test_a_roster_comes_through_every_fault_with_its_agent_connected() -> None:
    async with home() as it:
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        entry.agent_connected = True
        for fault in FAULTS:
            with fault.on(it.manager):
                await asyncio.sleep(60)
            await asyncio.sleep(10)
            assert (entry.phase, entry.wanted) == (Stage.RUNNING, True), fault
        assert it.manager.cancels == []
