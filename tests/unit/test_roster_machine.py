"""One state machine over all faults at once, in virtual time: the roster's three promises hold.

No live kernel is ever declared dead, no unwanted job survives, no second kernel answers to an id. By default
it takes 2,000 steps; ``ELSEWHERE_LONG=1`` makes them 100,000. And it can fail: each mutation is found.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from machine_evidence import WitnessedBackend
from machine_rules import STEPS_AT_ONCE, Machine
from machine_world import LOG, World

from elsewhere.backend import JobId, Observation
from elsewhere.roster import Entry, Roster
from elsewhere.roster.entry import Submission
from elsewhere.roster.reckoning import Absence, Instant, Job
from elsewhere.roster.strangers import Strangers

STEPS = 100_000 if os.environ.get("ELSEWHERE_LONG") else 2_000
LIVES_OF_A_RUN = 50

AT_RANDOM = settings(
    stateful_step_count=STEPS_AT_ONCE,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=False,  # nor where hypothesis would think so by itself: each run is to be another
    phases=(Phase.generate,),  # to shrink a life of 50 steps takes longer than a test may
)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine itself listens to what is logged; written down, thousands of tracebacks take long."""
    monkeypatch.setattr(LOG, "propagate", False)


@pytest.fixture(autouse=True)
def _others_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything else happen after each job of an observation, not after hundreds."""
    monkeypatch.setattr("elsewhere.roster.driver.PORTION", 1)


@pytest.mark.timeout(60 + STEPS // 20)
def test_promises_hold_under_all_faults_at_once() -> None:
    class Counted(Machine):
        steps = 0

    while Counted.steps < STEPS:  # hypothesis remembers all of a run, so a long one is many
        run_state_machine_as_test(Counted, settings=settings(AT_RANDOM, max_examples=LIVES_OF_A_RUN))
    print(f"{Counted.steps} steps")
    assert Counted.steps >= STEPS


# That it can fail: one mutation each.


def believe_one_absence_at_once(patch: pytest.MonkeyPatch) -> None:
    def missed(self: Absence, asked: Instant, settle: float) -> bool:
        return asked.turn > self.since.turn

    patch.setattr(Absence, "missed", missed)


def believe_the_first_lists_after_an_outage(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Entry, "doubt", lambda self, now: None)


def believe_the_manager_against_a_connected_agent(patch: pytest.MonkeyPatch) -> None:
    advance = Entry._advance

    def deaf(self: Entry, job: Job | None, over: bool) -> None:
        connected, self._agent_connected = self._agent_connected, False
        advance(self, job, over)
        self._agent_connected = connected

    patch.setattr(Entry, "_advance", deaf)


def leave_strangers_alone(patch: pytest.MonkeyPatch) -> None:
    def none(self: Strangers, newest: object, now: float) -> Iterator[tuple[Job, bool]]:
        yield from ()

    patch.setattr(Strangers, "unwanted", none)


def cancel_once(patch: pytest.MonkeyPatch) -> None:
    def cancel_due(self: Job, now: float) -> bool:
        return self.live and self.grace is None

    patch.setattr(Job, "cancel_due", cancel_due)


def submit_again_without_waiting(patch: pytest.MonkeyPatch) -> None:
    handed_over: Callable[..., None] = Roster._handed_over

    def hasty(self: Roster[Any, Any], entry: Entry, task: asyncio.Task[JobId | None]) -> None:
        handed_over(self, entry, task)
        if entry.wanted and entry.submission is Submission.UNKNOWN and not entry.agent_seen:
            asyncio.get_running_loop().call_later(1.0, again, self, entry)

    def again(self: Roster[Any, Any], entry: Entry) -> None:
        key = (entry.mark.kernel_id, entry.mark.launch)
        if not self._closed and not entry.submitting and key in self._orders:
            self._hand_over(entry)

    patch.setattr(Roster, "_handed_over", hasty)


def admit_every_agent(patch: pytest.MonkeyPatch) -> None:
    """Not the roster's part, but without it the third promise could not be kept."""
    call = World.call

    def lenient(self: World, job: Any) -> None:
        self.admitted.pop(job.mark, None)
        call(self, job)

    patch.setattr(World, "call", lenient)


def take_every_job_for_ours(patch: pytest.MonkeyPatch) -> None:
    class Unfiltered(WitnessedBackend):
        async def survey(self) -> Observation:
            observation = await super().survey()
            theirs = [job.sighting() for job in self.manager.live() if job.mark.home_id != self.home_id]
            return replace(observation, sightings=(*observation.sightings, *theirs))

    patch.setattr(World, "backend_class", Unfiltered)


@pytest.mark.parametrize(
    ("mutate", "promise"),
    [
        (believe_one_absence_at_once, "was declared dead|was submitted again"),
        (believe_the_first_lists_after_an_outage, "was declared dead|was submitted again"),
        (believe_the_manager_against_a_connected_agent, "its agent is connected"),
        (leave_strangers_alone, "unwanted jobs survive"),
        (cancel_once, "unwanted jobs survive"),
        (submit_again_without_waiting, "was submitted again while"),
        (admit_every_agent, "two kernels have one id"),
        (take_every_job_for_ours, "was cancelled"),
    ],
)
def test_the_machine_finds_what_breaks_a_promise(
    mutate: Callable[[pytest.MonkeyPatch], None], promise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)

    class Mutated(Machine):
        steps = 0

    once = settings(AT_RANDOM, max_examples=400, derandomize=True)
    try:
        with pytest.raises(AssertionError, match=promise):
            run_state_machine_as_test(Mutated, settings=once)
    finally:
        print(f"after {Mutated.steps} steps")
