"""What the state machine of the roster found, each as the shortest story that shows it. In virtual time."""

from __future__ import annotations

import asyncio

import pytest
from roster_kit import home

from elsewhere.roster import Stage
from elsewhere.testing.faults import ShowsAnEmptyList
from elsewhere.testing.memory import MemoryManager

pytestmark = pytest.mark.looptime


async def test_a_job_that_a_push_watch_does_not_tell_of_again_is_found_by_the_next_list_of_all() -> None:
    """It was believed lost, so it is unwanted; it never changes, so no watch that tells changes shows it."""
    manager = MemoryManager()
    async with home(manager, push=True) as it:
        await it.submit("keeps-the-watch-up")
        entry = await it.submit()
        await entry.until(Stage.RUNNING)
        with ShowsAnEmptyList(times=10).on(manager):
            entry.agent_connected = True
            entry.agent_connected = False  # which leaves it in doubt
            await entry.until(Stage.ENDED)
        assert it.job(entry).live
        await asyncio.sleep(2000)
        assert not it.job(entry).live
