"""Whatever goes wrong, in whatever order: what the roster promises still holds. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import looptime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from roster_kit import Home, home, now

from elsewhere.backend import Mark
from elsewhere.errors import CoreClosed
from elsewhere.roster import Entry, Stage
from elsewhere.testing.memory import MemoryManager

KERNELS = ("a", "b", "c")


class World:
    """What a user, a switchboard and a bad day may do to a roster; it notes broken promises."""

    def __init__(self, it: Home) -> None:
        self.it = it
        self.manager = it.manager
        self.launches = dict.fromkeys(KERNELS, 0)
        self.entries: dict[str, Entry] = {}
        self.wanted: set[Mark] = set()
        self.broken: list[str] = []
        self.witnesses: list[asyncio.Task[None]] = []
        self.omitted_at = -10
        self.back_at = float("-inf")

    async def do(self, action: str, kernel: str, amount: float) -> None:
        entry = self.entries.get(kernel)
        if action == "submit":
            await self.submit(kernel)
        elif action == "release" and entry is not None:
            self.wanted.discard(entry.mark)
            await self.it.roster.release(entry, grace=amount)
        elif action in ("connect", "disconnect", "end") and entry is not None:
            self.touch(action, entry)
        elif action == "omit":
            self.omit()
        elif action == "down":
            self.manager.down = True
        elif action == "up" and self.manager.down:
            self.come_back()
        elif action in ("lose_answers", "lose_requests", "ignores_cancels"):
            setattr(self.manager, action, 1)
        elif action in ("latency", "lag"):
            setattr(self.manager, action, amount)

    async def submit(self, kernel: str) -> None:
        self.launches[kernel] += 1
        if kernel in self.entries:
            self.wanted.discard(self.entries[kernel].mark)
        entry = self.entries[kernel] = await self.it.submit(kernel, self.launches[kernel])
        self.wanted.add(entry.mark)
        self.witnesses.append(asyncio.create_task(self.witness(entry)))

    async def witness(self, entry: Entry) -> None:
        try:
            await entry.until(Stage.ENDED)
        except CoreClosed:
            return
        if entry.mark in self.wanted and self.manager.live(entry.mark):
            self.broken.append(f"{now()}: {entry} was declared dead ({entry.reason}) while its job lives")

    def touch(self, action: str, entry: Entry) -> None:
        live = self.manager.live(entry.mark)
        if action == "connect" and live:
            entry.agent_connected = True
        elif action == "disconnect":
            entry.agent_connected = False
        elif action == "end":
            for job in live:
                self.manager.end(job, "ended")
            entry.agent_connected = False

    def come_back(self) -> None:
        """After an outage that was noticed, the lists are empty for a while."""
        self.manager.amnesia = 0.0 if self.it.roster.stale_since is None else 4.5
        self.manager.down = False
        self.manager.omit = 0
        self.back_at = now()

    def omit(self) -> None:
        """One list without anything: but not two in a row, nor where a new job is missing anyway."""
        young = any(now() - since < 30 for since in (self.back_at, *self.births()))
        if not young and self.manager.surveys - self.omitted_at > 3:
            self.manager.omit = 1
            self.omitted_at = self.manager.surveys

    def births(self) -> list[float]:
        return [job.born for job in self.manager.jobs.values()]

    async def heal(self) -> None:
        self.manager.down = False
        self.manager.latency = self.manager.lag = 0.0
        self.manager.lose_answers = self.manager.lose_requests = 0
        self.manager.ignores_cancels = self.manager.omit = 0
        await asyncio.sleep(150)

    def check(self) -> None:
        assert self.broken == []
        lives: dict[Mark, list[tuple[float, float]]] = {}
        for job in self.manager.jobs.values():
            lives.setdefault(job.mark, []).append((job.born, float("inf") if job.died is None else job.died))
        for mark, spans in lives.items():
            assert all(died <= born for (_, died), (born, _) in pairwise(spans)), (
                f"{mark} lived twice at once"
            )
        kept = [entry for entry in self.entries.values() if entry.mark in self.wanted and entry.wanted]
        assert {job.mark for job in self.manager.live()} == {entry.mark for entry in kept}
        assert all(entry.phase is Stage.RUNNING for entry in kept)
        assert all(entry.wanted or not entry.released for entry in self.it.roster.entries), "not gone"


ACTIONS = (
    *("submit", "submit", "release", "connect", "disconnect", "end", "omit", "down", "up", "up"),
    *("lose_answers", "lose_requests", "ignores_cancels", "latency", "lag"),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from((0.0, 0.1, 1.0, 2.0, 6.0, 13.0, 40.0)),
        st.sampled_from(ACTIONS),
        st.sampled_from(KERNELS),
        st.sampled_from((0.0, 0.5, 2.0, 4.5)),
    ),
    min_size=1,
    max_size=25,
)


def in_virtual_time(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = looptime.new_event_loop()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, push=st.booleans(), interval=st.sampled_from((1.0, 3.0)), gives_ids=st.booleans())
def test_promises_hold_under_any_faults(
    steps: list[tuple[float, str, str, float]], push: bool, interval: float, gives_ids: bool
) -> None:
    async def run() -> None:
        manager = MemoryManager()
        manager.runs_after = 0.5
        manager.gives_ids = gives_ids
        async with home(manager, interval=interval, push=push, submits_at_once=2) as it:
            world = World(it)
            for pause, action, kernel, amount in steps:
                await world.do(action, kernel, amount)
                await asyncio.sleep(pause)
            await world.heal()
            world.check()
        await asyncio.gather(*world.witnesses)

    in_virtual_time(run)
