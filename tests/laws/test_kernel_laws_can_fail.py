"""Each law of kernels notices the fault that it is there for: one broken backend for each."""

from __future__ import annotations

import inspect
import io
import json
import os
import sys
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from elsewhere import kernels as core
from elsewhere.agent.boot import MEMBER
from elsewhere.backend import JobId, Launch, Observation, Parcel, Phase
from elsewhere.backends.local import LocalBackend, LocalConfig, LocalOptions, LocalRequest
from elsewhere.errors import Rejected
from elsewhere.testing.kernel_lab import KernelLab, open_kernel_lab
from elsewhere.testing.kernel_laws import KernelLaws
from elsewhere.testing.subject import IPYKERNEL, Subject
from elsewhere.testing.witness import LawBroken
from site_kit import Site

PATIENCE = 10.0
SHORT = 4.0
"""Seconds in which nothing happens where a law is to notice just that."""


class Altered(LocalBackend):
    """Passes on another parcel than it was given."""

    def alter(self, parcel: dict[str, Any]) -> None:
        """Change what the agent reads."""

    async def submit(self, request: LocalRequest, parcel: Parcel) -> JobId:
        content = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(parcel.content)) as old, zipfile.ZipFile(content, "w") as new:
            for name in old.namelist():
                data = old.read(name)
                if name == MEMBER:
                    told = json.loads(data)
                    self.alter(told)
                    data = json.dumps(told).encode()
                new.writestr(name, data)
        return await super().submit(request, Parcel(content.getvalue()))


class OtherKernel(Altered):
    """Runs ipykernel after some code of its own."""

    code = ""

    def alter(self, parcel: dict[str, Any]) -> None:
        launch = "\nfrom ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
        argv = [sys.executable, "-c", self.code + launch, "-f", "{connection_file}"]
        parcel["order"].update(argv=argv)


class OneStream(OtherKernel):
    code = """
from ipykernel.iostream import OutStream
init = OutStream.__init__
def one(self, session, thread, name, *args, **kwargs):
    init(self, session, thread, "stdout", *args, **kwargs)
OutStream.__init__ = one
"""


class DiesOfInterrupts(OtherKernel):
    code = """
import signal
handle = signal.signal
handle(signal.SIGINT, signal.SIG_DFL)
signal.signal = lambda signum, handler: None if signum == signal.SIGINT else handle(signum, handler)
"""


class LosesTheExit(Altered):
    """Runs the kernel in a shell that always succeeds."""

    def alter(self, parcel: dict[str, Any]) -> None:
        argv = ["sh", "-c", '"$@"; exit 0', "sh", *parcel["order"]["argv"]]
        parcel["order"].update(argv=argv)


class StripsArgv(Altered):
    def alter(self, parcel: dict[str, Any]) -> None:
        parcel["order"].update(argv=[word.strip() for word in parcel["order"]["argv"]])


class StripsEnvironment(Altered):
    def alter(self, parcel: dict[str, Any]) -> None:
        env = {name: value.strip() for name, value in parcel["order"]["env"].items()}
        parcel["order"].update(env=env)


class Impatient(Altered):
    """Ends each job as soon as its kernel is over."""

    def alter(self, parcel: dict[str, Any]) -> None:
        parcel["graces"].update(idle=0)


class KeepsNoOutput(Altered):
    def alter(self, parcel: dict[str, Any]) -> None:
        parcel["spool"].update(memory=8000, disk=0)


class RunsSomethingElse(LocalBackend):
    def render(self, launch: Launch[LocalOptions]) -> LocalRequest:
        return replace(super().render(launch), argv=("true",))


class GuessesTheInterpreter(LocalBackend):
    def render(self, launch: Launch[LocalOptions]) -> LocalRequest:
        found = launch if os.path.exists(launch.python) else replace(launch, python=sys.executable)
        return super().render(found)


class OneLaunchOnly(LocalBackend):
    async def submit(self, request: LocalRequest, parcel: Parcel) -> JobId:
        if request.mark.launch > 1:
            raise Rejected("there was such a job before")
        return await super().submit(request, parcel)


class HidesJobs(LocalBackend):
    async def survey(self) -> Observation:
        return Observation((), complete=True)


class OneId(LocalBackend):
    """All its jobs have the same id."""

    async def submit(self, request: LocalRequest, parcel: Parcel) -> JobId:
        await super().submit(request, parcel)
        return JobId("job")

    async def survey(self) -> Observation:
        seen = (await super().survey()).sightings
        return Observation(tuple(replace(one, job_id=JobId("job")) for one in seen), complete=True)


class RenamesJobs(LocalBackend):
    """Each survey calls a job by another id."""

    surveys = 0

    async def survey(self) -> Observation:
        self.surveys += 1
        seen = (await super().survey()).sightings
        shown = (replace(one, job_id=JobId(f"{one.job_id}.{self.surveys}")) for one in seen)
        return Observation(tuple(shown), complete=True)


class NeverSeesAnEnd(LocalBackend):
    async def survey(self) -> Observation:
        seen = (await super().survey()).sightings
        shown = (replace(one, phase=Phase.RUNNING, reason=None, exit_code=None) for one in seen)
        return Observation(tuple(shown), complete=True)


class KillsWhatItLeaves(LocalBackend):
    async def close(self) -> None:
        for sighting in (await self.survey()).sightings:
            await self.cancel(sighting.job_id, grace=0)
        await super().close()


class CancelsNothing(LocalBackend):
    async def cancel(self, job_id: JobId, *, grace: float) -> None:
        """Believe that somebody else will."""


class CancelsOnce(LocalBackend):
    async def cancel(self, job_id: JobId, *, grace: float) -> None:
        for sighting in (await self.survey()).sightings:
            if sighting.job_id == job_id and sighting.phase is not Phase.ENDED:
                return await super().cancel(job_id, grace=grace)
        raise Rejected(f"there is no job {job_id}")


class DeafJobs(CancelsNothing):
    """What it runs is no agent, and is never ended."""

    def render(self, launch: Launch[LocalOptions]) -> LocalRequest:
        return replace(super().render(launch), argv=("sleep", "600"))


class MuteLog(LocalBackend):
    async def tail(self, job_id: JobId, lines: int) -> Sequence[str]:
        return ()


LAWS = KernelLaws
PENDING = LAWS.test_a_kernel_that_is_stopped_while_pending_leaves_nothing

Law = Callable[..., Awaitable[None]]
Try = Callable[..., Awaitable[None]]
Fault = tuple[Law, type[LocalBackend], str]

FAULTS: list[Fault] = [
    (LAWS.test_a_kernel_starts_and_answers, RunsSomethingElse, "did not start .agent"),
    (LAWS.test_a_kernel_says_on_which_host_and_as_which_job_it_runs, HidesJobs, "survey shows"),
    (LAWS.test_output_comes_while_the_code_still_runs, OneStream, "it printed"),
    (LAWS.test_an_interrupt_ends_the_code_and_not_the_kernel, DiesOfInterrupts, "over before .*SIGINT"),
    (LAWS.test_two_kernels_at_once_do_not_hear_each_other, OneId, "both are job"),
    (LAWS.test_a_restart_in_place_keeps_the_job_and_loses_the_variables, RenamesJobs, "it was job"),
    (LAWS.test_a_killed_kernel_is_told_as_killed_while_its_job_remains, LosesTheExit, "and 0 is told"),
    (LAWS.test_a_kernel_that_exits_is_told_with_its_code, LosesTheExit, "and 0 is told"),
    (LAWS.test_a_kernel_whose_job_was_lost_starts_again_in_a_new_job, OneLaunchOnly, "such a job before"),
    (LAWS.test_a_home_that_dies_and_returns_finds_the_kernel, KillsWhatItLeaves, "did not find its kernel"),
    (LAWS.test_output_printed_while_home_is_away_is_there, KeepsNoOutput, "second life heard"),
    (LAWS.test_an_exit_while_home_is_away_is_told_when_it_returns, Impatient, "did not find its kernel"),
    (LAWS.test_stopping_twice_is_no_error, CancelsOnce, "there is no job"),
    (LAWS.test_awkward_words_arrive_whole_in_argv, StripsArgv, "arrived as"),
    (LAWS.test_awkward_words_arrive_whole_in_the_environment, StripsEnvironment, "arrived as"),
    (LAWS.test_a_program_that_is_not_there_is_told, LosesTheExit, "the step is"),
    (LAWS.test_a_program_that_ends_at_once_is_told_with_its_last_lines, LosesTheExit, "it exited with 3"),
    (LAWS.test_an_interpreter_that_is_not_there_is_told, GuessesTheInterpreter, "has started"),
]

SILENCES: list[Fault] = [
    (LAWS.test_what_a_kernel_writes_past_jupyter_is_in_the_jobs_log, MuteLog, "not in the log"),
    (LAWS.test_a_killed_agent_is_told_as_a_lost_job, NeverSeesAnEnd, "the end of the kernel is told"),
    (LAWS.test_stop_leaves_nothing_on_the_manager, NeverSeesAnEnd, "the manager still has"),
    (LAWS.test_a_job_whose_agent_is_stuck_is_stopped_by_force, CancelsNothing, "the manager still has"),
    (PENDING, DeafJobs, "the manager still has"),
]
"""Faults by which something never happens, so that a law notices when its patience is over."""


def named(faults: list[Fault]) -> list[str]:
    return [f"{backend.__name__}-{law.__name__}" for law, backend, _ in faults]


@pytest.fixture
async def tried(site: Site, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Try]:
    """Try a law on a backend; whatever is left after that is ended by the backend without a fault."""
    monkeypatch.setattr(core, "GONE_TIMEOUT", 0.5)
    labs: list[KernelLab] = []

    async def one(
        law: Law, backend: type[LocalBackend], patience: float, *more: str, argv: Sequence[str] = IPYKERNEL
    ) -> None:
        config = {"directory": site.jobs, "survey_interval": 0.05}
        subject = Subject(backend, config, argv=tuple(argv), patience=patience)
        lab = KernelLab(subject)
        labs.append(lab)
        await lab.open()
        try:
            await law(KernelLaws(), lab, *more)
        finally:
            lab.subject = replace(subject, patience=0.1)
            await lab.aclose()

    yield one
    for lab in labs:
        await clear(lab.home_id, site)


async def clear(home_id: str, site: Site) -> None:
    """End the jobs of this home, and remove what they left, by a backend without a fault."""
    sound = LocalBackend(home_id, LocalConfig(directory=site.jobs))
    try:
        while left := (await sound.survey()).sightings:
            for sighting in left:
                await sound.cancel(sighting.job_id, grace=0)
                await sound.discard(sighting.job_id)
    finally:
        await sound.close()


@pytest.mark.parametrize(("law", "backend", "match"), FAULTS, ids=named(FAULTS))
async def test_a_fault_is_noticed(tried: Try, law: Law, backend: type[LocalBackend], match: str) -> None:
    with pytest.raises(AssertionError, match=match):
        await tried(law, backend, PATIENCE)


@pytest.mark.parametrize(("law", "backend", "match"), SILENCES, ids=named(SILENCES))
async def test_that_something_never_happens_is_noticed(
    tried: Try, law: Law, backend: type[LocalBackend], match: str
) -> None:
    more = ["submitted"] if law is PENDING else []
    with pytest.raises(AssertionError, match=match):
        await tried(law, backend, SHORT, *more)


async def test_a_kernel_that_keeps_its_variables_is_noticed(tried: Try) -> None:
    law = LAWS.test_a_restart_in_place_keeps_the_job_and_loses_the_variables
    argv = [*IPYKERNEL, "--IPKernelApp.exec_lines=x = 41"]
    with pytest.raises(AssertionError, match="still there"):
        await tried(law, LocalBackend, PATIENCE, argv=argv)


def test_each_law_has_its_fault() -> None:
    laws = {name for name, _ in inspect.getmembers(KernelLaws) if name.startswith("test_")}
    assert laws == {law.__name__ for law, *_ in (*FAULTS, *SILENCES)}


async def test_a_law_that_leaves_something_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "GONE_TIMEOUT", 0.5)
    subject = Subject(NeverSeesAnEnd, {"directory": site.jobs, "survey_interval": 0.05}, patience=SHORT)
    lent = open_kernel_lab(subject)
    lab = await lent.__aenter__()
    await lab.start()
    with pytest.raises(LawBroken, match="the manager still has"):
        await lent.__aexit__(None, None, None)
    await clear(lab.home_id, site)
