"""Kernels that start at the same time on a cluster where they take turns: virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from test_kernels import Site, rundir, site

from elsewhere.agent.words import Report
from elsewhere.errors import LaunchFailed
from elsewhere.testing.memory import MemoryConfig

__all__ = ["rundir", "site"]

pytestmark = pytest.mark.looptime


class Two:
    """Two kernels that were started at the same time: the first is starting, the second waits."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.kernels = [site.kernel("first"), site.kernel()]
        self.first, self.second = (asyncio.create_task(kernel.start(site.wish())) for kernel in self.kernels)

    @property
    def waiting(self) -> str:
        return self.kernels[1].status

    @property
    def jobs(self) -> int:
        return len(self.site.manager.jobs)

    async def first_is_ready(self) -> None:
        (await self.site.line("first")).heard(Report(1, "ready"))
        await self.first
        await asyncio.sleep(0.01)


@pytest.fixture
async def two(site: Site) -> AsyncIterator[Two]:
    site.resolved = replace(site.resolved, config=MemoryConfig(starts_at_once=1))
    two = Two(site)
    await site.job("first")
    assert two.waiting == "waits for its turn to start (starts_at_once is 1)"
    yield two
    for kernel in two.kernels:
        await kernel.end()


async def test_it_is_submitted_when_its_turn_comes(two: Two) -> None:
    assert two.jobs == 1
    await two.first_is_ready()
    (await two.site.line()).heard(Report(1, "ready"))
    await two.second
    assert two.waiting == "kernel ready"


async def test_it_is_ended_while_it_waits_and_never_submitted(two: Two) -> None:
    await two.kernels[1].end()
    with pytest.raises(LaunchFailed, match="ended before its job was submitted"):
        await two.second
    await two.first_is_ready()
    assert two.jobs == 1


async def test_a_later_start_takes_its_place_and_there_is_one_job(two: Two) -> None:
    again = asyncio.create_task(two.kernels[1].start(two.site.wish()))
    with pytest.raises(LaunchFailed, match="another start has taken the place"):
        await two.second
    await two.first_is_ready()
    (await two.site.line(launch=2)).heard(Report(1, "ready"))
    await again
    assert two.jobs == 2


async def test_a_start_that_is_cancelled_while_it_waits_leaves_nothing(two: Two) -> None:
    two.second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await two.second
    await two.first_is_ready()
    assert two.jobs == 1
