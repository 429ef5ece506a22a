"""``elsewhere doctor``, and the commands beside it, on real jobs of which nothing may be left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from elsewhere import kernels, plugins
from elsewhere.backend import (
    Backend,
    ClusterConfig,
    JobId,
    Launch,
    Mark,
    Observation,
    Options,
    Parcel,
    Phase,
    Sighting,
)
from elsewhere.cli import checkup, main
from elsewhere.errors import Unreachable
from gateway_kit import PROGRAM, gateway_of
from site_kit import PATIENCE, STUB, Site, until

STEPS = [
    "settings", "capacity", "reach the manager", "render", "submit", "queued", "running", "agent home",
    "kernel ready",
    "first reply", "interrupt", "restart", "stop", "nothing left",
]  # fmt: skip
BOOM = "print('boom'); print('last words'); raise SystemExit(3)"
MUTE = "import time; print('not listening', flush=True); time.sleep(1000)"


@pytest.fixture
def here(site: Site) -> Site:
    """A site with a cluster ``here``."""
    return cluster(site)


def cluster(site: Site, more: str = "") -> Site:
    site.toml(f'{more}\n[clusters.here]\ntype = "local"\ndirectory = "{site.jobs}"\n')
    return site


def doctor(*words: str, expect: int = 0) -> tuple[str, str]:
    """What it prints, and what it says on stderr."""
    done = subprocess.run(
        [PROGRAM, "doctor", *words], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout, done.stderr


def report(*words: str, expect: int = 0) -> tuple[Any, dict[str, Any]]:
    """Its JSON, and the step that failed."""
    told, said = doctor(*words, "--json", expect=expect)
    assert said == ""
    report = json.loads(told)
    assert [step["name"] for step in report["steps"]] == STEPS
    failed = [step for step in report["steps"] if step["outcome"] == "failed"]
    assert len(failed) == bool(expect)
    return report, failed[0] if failed else {}


def test_a_healthy_cluster(here: Site) -> None:
    told, said = doctor("here")
    assert said == ""
    lines = told.splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * len(STEPS)
    for name, line in zip(STEPS, lines, strict=True):
        assert line[9:].startswith(name)
        assert " s  " in line
    for word in (
        "called from 127.0.0.1",
        "TLSv1.3",
        "KeyboardInterrupt",
        "in the same job, without the old",
        "kernels in one gateway",
    ):
        assert word in told
    here.expect_nothing_left()


def test_a_backend_with_its_defaults_as_json(site: Site) -> None:
    found, _ = report("local", "-o", "nice=1")
    assert (found["ok"], found["backend"], found["cluster"]) == (True, "local", "local")
    assert {step["outcome"] for step in found["steps"]} == {"ok"}
    assert all(step["seconds"] >= 0 for step in found["steps"])
    assert found["job_id"].startswith(f"elsewhere-{found['home']}-1-doctor-")
    jobs = site.runtime / "elsewhere" / "local"
    jobs.rmdir()  # it is empty
    jobs.parent.rmdir()


def test_another_kernel_is_tried_as_far_as_its_language_is_known(here: Site) -> None:
    here.spec("stub", STUB, language="stub")
    found, _ = report("here", "--spec", "stub")
    outcomes = {step["name"]: (step["outcome"], step["finding"]) for step in found["steps"]}
    assert outcomes["first reply"][0] == "ok"
    assert outcomes["restart"] == ("ok", "a new kernel in the same job")
    outcome, why = outcomes["interrupt"]
    assert outcome == "skipped"
    assert "no cell is known" in why


@pytest.mark.parametrize(
    ("words", "step", "finding", "look_at"),
    [
        (("heer",), "settings", "and no backend (did you mean `here`?)", "elsewhere.toml"),
        (("here", "-o", "ncie=3"), "settings", "options.ncie: unknown key (did you mean `nice`?)", "-o"),
        (("here", "--spec", "sasy"), "settings", "is called so (did you mean `says`?)", "--spec"),
        (("here", "-o", "python=no-such"), "submit", "no interpreter `no-such`", "the manager's own words"),
        (("here", "-o", "python=false"), "agent home", "exited with code 1", "Python 3.8 or newer"),
        (("here", "--spec", "says"), "kernel ready", "exited with code 3", "Is the kernel installed there"),
        (("here", "--spec", "none"), "kernel ready", "there is no program 'no-such-kernel'", "such-kernel"),
    ],
)  # fmt: skip
def test_what_fails_is_told_with_what_to_look_at(
    here: Site, words: tuple[str, ...], step: str, finding: str, look_at: str
) -> None:
    here.spec("says", ("python3", "-c", BOOM, "{connection_file}"))
    here.spec("none", ("no-such-kernel", "{connection_file}"))
    found, failed = report(*words, expect=1)
    assert failed["name"] == step
    assert finding in failed["finding"]
    assert look_at in failed["look_at"]
    assert (failed["log"] == ["boom", "last words"]) == ("says" in words)
    before, after = STEPS[: STEPS.index(step)], STEPS[STEPS.index(step) + 1 :]
    outcomes = {step["name"]: step["outcome"] for step in found["steps"]}
    assert {outcomes[name] for name in before} <= {"ok"}
    ends = "skipped" if step == "settings" else "ok"
    assert [outcomes[name] for name in after] == ["skipped"] * (len(after) - 2) + [ends] * 2
    here.expect_nothing_left()


def test_a_failure_as_a_person_sees_it(here: Site) -> None:
    here.spec("says", ("python3", "-c", BOOM, "{connection_file}"))
    lines = doctor("here", "--spec", "says", expect=1)[0].splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("failed "))
    assert [line.strip() for line in lines[at + 1 : at + 4]] == [
        "the last lines of its log:",
        "boom",
        "last words",
    ]
    assert lines[at + 4].strip().startswith("look at: does `python3 …` start on ")
    assert lines[at + 5] == "skipped  first reply, interrupt, restart"
    assert [line.split()[0] for line in lines[at + 6 :]] == ["ok", "ok"]


def test_an_address_where_nobody_listens(site: Site) -> None:
    cluster(site, '[switchboard]\nadvertise = ["127.0.0.1:1"]')
    _, failed = report("here", "--timeout", "4", expect=1)
    assert failed["name"] == "agent home"
    assert "not done in 4 s: the job runs; waiting for its agent" in failed["finding"]
    assert "reach 127.0.0.1:1? Set [switchboard] `bind` and `advertise`" in failed["look_at"]
    assert "Only jobs of this machine" in failed["look_at"]
    site.expect_nothing_left()


def test_a_kernel_that_does_not_listen(here: Site) -> None:
    here.spec("mute", ("python3", "-c", MUTE, "{connection_file}"))
    _, failed = report("here", "--spec", "mute", "--timeout", "4", expect=1)
    assert failed["name"] == "kernel ready"
    assert failed["log"] == ["not listening"]
    here.expect_nothing_left()


def test_an_address_that_cannot_be_had(site: Site) -> None:
    cluster(site, '[switchboard]\nbind = "192.0.2.1"')
    _, failed = report("here", expect=1)
    assert failed["name"] == "settings"
    assert "cannot listen for agents on 192.0.2.1" in failed["finding"]
    site.expect_nothing_left()


@pytest.mark.parametrize(
    "words", ["$(touch owned)", "; touch owned", "`touch owned`", "a\nb", "\x1b[31m", "'\"\\"]
)
def test_hostile_words_are_values_and_nothing_else(here: Site, words: str) -> None:
    told, _ = doctor("here", "-o", f"python={words}", expect=1)
    assert "failed   submit" in told
    assert "\x1b" not in told
    assert "must be a whole number" in doctor("here", "-o", f"nice={words}", expect=1)[0]
    assert "unknown key" in doctor("here", "-o", f"{words}=1", expect=1)[0]
    assert not [*here.root.rglob("owned"), *here.root.cwd().glob("owned")]


class FaultyConfig(ClusterConfig):
    survey_interval: float = 0.1
    fault: str


class Faulty(Backend[Options, str]):
    """A manager in memory that runs nothing, and has one fault."""

    Config = FaultyConfig
    config: FaultyConfig

    def __init__(self, home_id: str, config: ClusterConfig) -> None:
        super().__init__(home_id, config)
        self.jobs: dict[JobId, Mark] = {}
        self.phase = Phase.QUEUED if self.config.fault == "queued" else Phase.RUNNING

    def render(self, launch: Launch[Options]) -> str:
        return str(launch.mark)

    async def submit(self, request: str, parcel: Parcel) -> JobId:
        mark = Mark.parse(request)
        assert mark is not None
        self.jobs[JobId("7")] = mark
        return JobId("7")

    async def survey(self) -> Observation:
        if self.config.fault == "silent":
            raise Unreachable("connection refused")
        if self.config.fault == "bug":
            raise ZeroDivisionError("boom")
        if self.config.fault == "hangs":
            await asyncio.Event().wait()
        seen = [
            Sighting(mark.kernel_id, 1, job, self.phase, None, "Resources") for job, mark in self.jobs.items()
        ]
        return Observation(tuple(seen), complete=True)

    async def cancel(self, job_id: JobId, *, grace: float) -> None:
        if self.config.fault != "stays":
            self.phase = Phase.ENDED


class _Entry:
    def load(self) -> type[Faulty]:
        return Faulty


@pytest.mark.parametrize(
    ("fault", "step", "finding", "look_at", "left"),
    [
        ("silent", "reach the manager", "connection refused", "is the manager up", []),
        (
            "bug",
            "reach the manager",
            "a fault in the backend or in elsewhere: ZeroDivisionError",
            "",
            [],
        ),
        ("hangs", "reach the manager", "not done in 1 s", "[clusters.far]", []),
        ("queued", "queued", "not done in 1 s: queued: Resources", "the manager's own view of 7", []),
        ("unknown", "agent home", "not done in 1 s: the job runs", "can its host reach 127.0.0.1:", []),
        ("stays", "agent home", "not done in 1 s: the job runs", "can its host", ["nothing left"]),
    ],
)
def test_a_manager_with_a_fault(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    step: str,
    finding: str,
    look_at: str,
    left: list[str],
) -> None:
    monkeypatch.setattr(plugins, "_installed", lambda: {"faulty": _Entry()})
    monkeypatch.setattr(checkup, "PATIENCE", 2.0)
    monkeypatch.setattr(kernels, "GONE_TIMEOUT", 0.5)
    site.toml(f'[clusters.far]\ntype = "faulty"\nfault = "{fault}"')
    result = CliRunner().invoke(main, ["doctor", "far", "--timeout", "1", "--json"])
    assert result.exit_code == 1, result.exception
    failed = {one["name"]: one for one in json.loads(result.stdout)["steps"] if one["outcome"] == "failed"}
    assert list(failed) == [step, *left]
    assert finding in failed[step]["finding"]
    assert look_at in failed[step]["look_at"]
    assert ("boom" in str(failed[step]["log"])) == (fault == "bug")
    if left:
        assert "elsewhere survey far --home" in failed["nothing left"]["look_at"]


def test_words_that_are_no_options(here: Site) -> None:
    assert "is not of the form key=value" in doctor("here", "-o", "nice", expect=2)[1]
    assert "x>=0.1" in doctor("here", "--timeout", "0", expect=2)[1]
    assert "CLUSTER" in doctor(expect=2)[1]


@contextmanager
def examined(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A doctor at work."""
    argv = [PROGRAM, "doctor", *words, "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_canary_too(here: Site, signum: int) -> None:
    here.spec("mute", ("python3", "-c", MUTE, "{connection_file}"))
    with examined("here", "--spec", "mute") as process:
        until(lambda: here.job_processes("not listening"), "the kernel is started")
        process.send_signal(signum)
        told, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (130, "")
    found = json.loads(told)
    assert not found["ok"]
    assert [step["outcome"] for step in found["steps"]][-2:] == ["ok", "ok"]
    assert "interrupted" in {step["finding"] for step in found["steps"]}
    here.expect_nothing_left()


def test_at_a_terminal_the_step_under_way_is_shown(here: Site) -> None:
    here.spec("mute", ("python3", "-c", MUTE, "{connection_file}"))
    ours, its = os.openpty()
    argv = [PROGRAM, "doctor", "here", "--spec", "mute", "--timeout", "7"]
    env = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    with subprocess.Popen(argv, stdout=its, env=env) as process:
        os.close(its)
        shown = b"".join(iter(lambda: read(ours), b"")).decode()
        assert process.wait(PATIENCE) == 1
    os.close(ours)
    assert "…        kernel ready" in shown
    assert "kernel starting; does `python3 …` start on " in shown


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # nobody writes to it any more
        return b""


def test_a_gateways_jobs_are_surveyed(here: Site) -> None:
    """And what is shown of its request is what is submitted."""
    here.spec(config={"cluster": "here"})
    with gateway_of(here) as gateway:
        kernel = gateway.kernel()
        detail = gateway.until_state(kernel, "idle")
        told = elsewhere("survey", "--json")
        (job,) = json.loads(told)["jobs"]
        assert (job["kind"], job["kernel_id"], job["cluster"]) == ("ours", kernel, "here")
        assert (job["job_id"], job["phase"]) == (detail["job_id"], "running")
    request = json.loads(elsewhere("render", "away", "--json"))
    assert request["argv"][0] == sys.executable
    assert request["directory"].startswith(str(here.jobs))


def elsewhere(*words: str) -> str:
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
