"""Turns of those who start on one cluster: virtual time."""

from __future__ import annotations

import asyncio

import pytest

from elsewhere.changes import Changes
from elsewhere.turns import LONGEST, Turns

pytestmark = pytest.mark.looptime


class Start:
    """Somebody who wants to start."""

    def __init__(self, turns: Turns) -> None:
        self.changes = Changes()
        self.wanted = True
        self._began = False
        self.ready = asyncio.Event()
        self.task = asyncio.create_task(self._run(turns))

    def began(self) -> bool:
        return self._began

    async def _run(self, turns: Turns) -> None:
        async with turns.turn(lambda: self.wanted, self.changes):
            self._began = True
            await self.ready.wait()


async def settle() -> None:
    await asyncio.sleep(0.01)


async def begin(turns: Turns, count: int) -> list[Start]:
    starts = [Start(turns) for _ in range(count)]
    await settle()
    return starts


async def end(*starts: Start) -> None:
    for one in starts:
        one.ready.set()
        await one.task


async def test_so_many_at_a_time_in_their_order() -> None:
    turns = Turns(2)
    starts = await begin(turns, 4)
    assert [one.began() for one in starts] == [True, True, False, False]
    await end(starts[1])
    await settle()
    assert [one.began() for one in starts] == [True, True, True, False]
    await end(*starts)


async def test_without_a_limit_nobody_waits() -> None:
    turns = Turns(None)
    starts = await begin(turns, 50)
    assert all(one.began() for one in starts)
    await end(*starts)


async def test_who_is_never_ready_holds_up_the_others_for_a_while_only() -> None:
    turns = Turns(1)
    stuck, next_one, last = await begin(turns, 3)
    await asyncio.sleep(LONGEST)
    assert (next_one.began(), last.began()) == (True, False)
    await end(stuck)  # it has no turn any more, so it gives none back
    await settle()
    assert not last.began()
    await end(next_one)
    await settle()
    assert last.began()
    await end(last)


async def test_who_is_wanted_no_longer_waits_no_longer_and_takes_no_turn() -> None:
    turns = Turns(1)
    first, second, third = await begin(turns, 3)
    second.wanted = False
    second.changes.notify()
    await settle()
    assert second.began()
    await end(second)
    await settle()
    assert not third.began()
    await end(first)
    await settle()
    assert third.began()
    await end(third)


async def test_a_change_that_means_nothing_wakes_nobody_for_good() -> None:
    turns = Turns(1)
    first, second = await begin(turns, 2)
    second.changes.notify()
    await settle()
    assert not second.began()
    await end(first, second)


@pytest.mark.parametrize("in_the_moment", [False, True])
async def test_a_waiter_that_is_cancelled_takes_no_turn_away(in_the_moment: bool) -> None:
    turns = Turns(1)
    first, second, third = await begin(turns, 3)
    if in_the_moment:
        first.ready.set()
        await first.task  # the turn has just been given to the second
    second.task.cancel()
    await asyncio.wait({second.task})
    await end(first)
    await settle()
    assert (second.began(), third.began()) == (False, True)
    await end(third)
    (last,) = await begin(turns, 1)
    assert last.began(), "the turn was given back"
    await end(last)
