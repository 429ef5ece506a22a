"""The rules of the roster's state machine: what may happen in its world, one step each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import looptime
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machine_world import World, pump
from roster_kit import HOME

from elsewhere.backend import Mark
from elsewhere.roster import Entry
from elsewhere.testing.faults import (
    FAULTS,
    FailsHalfwayThroughSubmit,
    FallsSilent,
    Fault,
    IgnoresCancels,
    IsSlow,
    LosesTheAnswer,
    LosesTheRequest,
    Refuses,
    RunsTheJobTwice,
    ShowsJobsLate,
    StartsEmptyAfterAnOutage,
    lift_all,
)
from elsewhere.testing.memory import MemoryJob

STEPS_AT_ONCE = 50
"""Steps of one life of the machine, which then comes to rest."""

T = TypeVar("T")

ANY = st.integers(0, 11)
"""Which of those that there are."""
PAUSES = st.sampled_from((0.0, 0.0, 0.1, 1.0, 2.0, 3.5, 7.0, 13.0, 40.0))
"""Seconds that pass after a step."""
KERNELS = st.sampled_from(("a", "b", "c"))
AMOUNTS = st.sampled_from((0.5, 2.0, 4.5, 8.0))
"""Seconds: within what the roster promises, and beyond."""
SUBMITS_FAIL: tuple[Fault, ...] = (
    LosesTheAnswer(),
    LosesTheRequest(),
    FailsHalfwayThroughSubmit(),
    FailsHalfwayThroughSubmit(refused=True),
    Refuses(),
    FallsSilent(),
    IsSlow(),
    ShowsJobsLate(),
)


def is_home(machine: Machine) -> bool:
    """Whether home lives now."""
    return machine.it.roster is not None


def may_die(machine: Machine) -> bool:
    """Whether home lives and has a ledger."""
    return machine.it.roster is not None and machine.it.gateway


def has_jobs(machine: Machine) -> bool:
    """Whether a job of ours lives."""
    return machine.job(0) is not None


def has_entries(machine: Machine) -> bool:
    """Whether the roster knows anything."""
    return machine.entry(0) is not None


def talks(machine: Machine) -> bool:
    """Whether an agent is connected whose kernel is wanted."""
    return machine.talking(0) is not None


def agent_may_call(machine: Machine) -> bool:
    """Whether there may be one, and somebody who answers."""
    return is_home(machine) and has_jobs(machine)


class Machine(RuleBasedStateMachine):
    """Each rule is a step: something happens, then time passes. ``steps`` counts those of all its lives."""

    world_class = World
    it: World
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = looptime.new_event_loop(noop_cycles=0)
        self.faulty_loop: list[str] = []
        self.loop.set_exception_handler(lambda loop, context: self.faulty_loop.append(str(context)))

    # How a step is taken.

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        result: T = self.loop.run_until_complete(coroutine)
        return result

    def step(self, pause: float, happening: Coroutine[Any, Any, object] | None = None) -> None:
        async def happens() -> None:
            if happening is not None:
                await happening
            await pump()
            if pause:
                await asyncio.sleep(pause)
                await pump()

        type(self).steps += 1
        self.run(happens())

    def act(self, pause: float, function: Callable[..., object], *args: Any) -> None:
        async def acts() -> None:
            function(*args)

        self.step(pause, acts())

    def entry(self, which: int) -> Entry | None:
        roster = self.it.roster
        return one_of([*roster.entries] if roster else [], which)

    def job(self, which: int) -> MemoryJob | None:
        return one_of([job for job in self.it.manager.live() if job.mark.home_id == HOME], which)

    def talking(self, which: int) -> Mark | None:
        return one_of([mark for mark in self.it.connected if mark in self.it.wanted], which)

    @initialize(
        gateway=st.booleans(),
        push=st.booleans(),
        interval=st.sampled_from((1.0, 3.0)),
        runs_after=st.sampled_from((0.0, 0.5, 5.0, None)),
        link_torn_after=st.sampled_from((0.0, 5.0, 15.0)),
    )
    def begin(
        self, gateway: bool, push: bool, interval: float, runs_after: float | None, link_torn_after: float
    ) -> None:
        self.it = self.world_class(gateway=gateway, push=push, interval=interval)
        self.it.manager.runs_after = runs_after
        self.it.link_torn_after = link_torn_after
        self.run(self.it.open_home())
        self.run(self.it.start("a"))
        self.run(self.it.start("b"))
        self.run(asyncio.sleep(6.0))

    # The user, and time.

    @rule(kernel=KERNELS, patience=st.sampled_from((None, None, 10.0, 60.0)), pause=PAUSES)
    @precondition(is_home)
    def a_user_starts_a_kernel(self, kernel: str, patience: float | None, pause: float) -> None:
        self.step(pause, self.it.start(kernel, patience))

    @rule(kernel=KERNELS, fault=st.sampled_from(SUBMITS_FAIL), pause=PAUSES)
    @precondition(is_home)
    def a_user_starts_a_kernel_and_the_manager_fails(self, kernel: str, fault: Fault, pause: float) -> None:
        fault.begin(self.it.manager)
        self.step(pause, self.it.start(kernel))

    @rule(which=ANY, grace=AMOUNTS, ignored=st.sampled_from((0, 0, 1, 3)), pause=PAUSES)
    @precondition(has_entries)
    def a_user_ends_a_kernel(self, which: int, grace: float, ignored: int, pause: float) -> None:
        if entry := self.entry(which):
            IgnoresCancels(ignored).begin(self.it.manager)
            self.step(pause, self.it.release(entry, grace))

    @rule(pause=st.sampled_from((1.0, 6.0, 15.0, 60.0, 100.0)))
    def time_passes(self, pause: float) -> None:
        self.step(pause)

    # The agents.

    @rule(which=ANY, pause=PAUSES)
    @precondition(agent_may_call)
    def an_agent_calls(self, which: int, pause: float) -> None:
        if job := self.job(which):
            self.act(pause, self.it.call, job)

    @rule(pause=PAUSES)
    @precondition(agent_may_call)
    def all_agents_call(self, pause: float) -> None:
        self.act(pause, self.it.all_call)

    @rule(which=ANY, pause=PAUSES)
    @precondition(talks)
    def a_link_is_torn(self, which: int, pause: float) -> None:
        if mark := self.talking(which):
            self.act(pause, self.it.hang_up, mark)

    @precondition(talks)
    @rule(which=ANY, ends_after=st.sampled_from((0.0, 3.0, None)), pause=PAUSES)
    def an_agent_reports_its_end(self, which: int, ends_after: float | None, pause: float) -> None:
        def report(mark: Mark) -> None:
            job = self.it.report_exit(mark)
            if ends_after is not None:
                self.loop.call_later(ends_after, self.it.manager.end, job, "done", 3)

        if mark := self.talking(which):
            self.act(pause, report, mark)

    # The manager and its jobs.

    @rule(which=ANY, pause=PAUSES)
    @precondition(has_jobs)
    def a_job_runs(self, which: int, pause: float) -> None:
        if job := self.job(which):
            self.act(pause, self.it.manager.run, job)

    @rule(which=ANY, pause=PAUSES)
    @precondition(has_jobs)
    def a_job_runs_twice(self, which: int, pause: float) -> None:
        if job := self.job(which):
            self.act(pause, RunsTheJobTwice(job.job_id).begin, self.it.manager)

    @rule(which=ANY, pause=PAUSES)
    @precondition(has_jobs)
    def a_job_dies(self, which: int, pause: float) -> None:
        if job := self.job(which):
            self.act(pause, self.it.manager.end, job, "NODE_FAIL", 1)

    @rule(kernel=KERNELS, launch=st.integers(1, 6), pause=PAUSES)
    def a_job_of_an_earlier_launch_appears(self, kernel: str, launch: int, pause: float) -> None:
        mark = Mark(HOME, kernel, launch)
        if launch <= self.it.launches[kernel] and mark not in self.it.wanted:
            self.act(pause, self.it.manager.add, mark)

    @rule(pause=PAUSES)
    @precondition(may_die)
    def an_orphan_appears(self, pause: float) -> None:
        self.act(pause, self.it.manager.add, Mark(HOME, "orphan", 1))

    @rule(fault=st.sampled_from(FAULTS), amount=AMOUNTS, which=ANY, every=st.booleans(), pause=PAUSES)
    def a_fault_begins(self, fault: Fault, amount: float, which: int, every: bool, pause: float) -> None:
        changes: dict[str, Any] = {}
        names = {field.name for field in fields(fault)}  # type: ignore[arg-type]  # each is a dataclass
        if "seconds" in names:
            changes["seconds"] = amount
        if "times" in names:
            changes["times"] = 1 + which % 3
        if "job_id" in names and not every and (job := self.job(which)):
            changes["job_id"] = job.job_id
        if "kernel_id" in names and every:
            changes["kernel_id"] = "a"
        self.act(pause, replace(fault, **changes).begin, self.it.manager)  # type: ignore[type-var]

    @rule(seconds=st.sampled_from((0.1, 2.0, 4.0, 10.0, 100.0)), empty=AMOUNTS, pause=PAUSES)
    def an_outage(self, seconds: float, empty: float, pause: float) -> None:
        async def outage() -> None:
            manager = self.it.manager
            with StartsEmptyAfterAnOutage(empty).on(manager):
                with FallsSilent().on(manager):
                    await asyncio.sleep(seconds)
                await asyncio.sleep(empty)

        self.step(pause, outage())

    @rule(fault=st.sampled_from(FAULTS), pause=PAUSES)
    def a_fault_ends(self, fault: Fault, pause: float) -> None:
        self.act(pause, fault.end, self.it.manager)

    @rule(pause=PAUSES)
    def all_faults_end(self, pause: float) -> None:
        self.act(pause, lift_all, self.it.manager)

    # Home.

    @rule(pause=PAUSES)
    @precondition(may_die)
    def home_dies(self, pause: float) -> None:
        self.step(pause, self.it.close_home())

    @rule(pause=PAUSES)
    @precondition(lambda machine: not is_home(machine))
    def home_returns(self, pause: float) -> None:
        self.step(pause, self.it.open_home())

    # The promises.

    @invariant()
    def promises_hold(self) -> None:
        self.run(self.it.check())
        assert self.faulty_loop == []

    def teardown(self) -> None:
        try:
            if not self.it.broken:
                self.run(self.it.come_to_rest())
                self.run(self.it.close_home())
                self.promises_hold()
        finally:
            self.it.stop_listening()
            self.run(end_all_tasks())
            self.loop.close()


def one_of(these: Sequence[T], which: int) -> T | None:
    """Return one of them, if there is any."""
    return these[which % len(these)] if these else None


async def end_all_tasks() -> None:
    """Leave nothing behind, whatever was broken."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
