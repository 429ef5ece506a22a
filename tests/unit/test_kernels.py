"""One kernel of a home, on a manager in memory and with an agent that is only told of: virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from elsewhere.agent.words import Report
from elsewhere.backend import Mark
from elsewhere.errors import KernelGone, LaunchFailed
from elsewhere.home import Home
from elsewhere.identity import Identity
from elsewhere.kernels import Kernel
from elsewhere.launch import Host
from elsewhere.line import Line
from elsewhere.rundir import RunDirectory
from elsewhere.settings import LaunchSettings, Limits, Resolved, Switchboard
from elsewhere.testing.memory import (
    MemoryBackend,
    MemoryConfig,
    MemoryJob,
    MemoryManager,
    MemoryOptions,
)
from elsewhere.wish import Connection, Wish

pytestmark = pytest.mark.looptime

IDENTITY = Identity.create()


@dataclass
class Spec:
    argv: list[str]
    env: dict[str, str]
    resource_dir: str = ""


class Site:
    """A home on one manager, and what a test says to and of its kernels."""

    def __init__(self, home: Home, manager: MemoryManager) -> None:
        self.home = home
        self.manager = manager

        class Here(MemoryBackend):
            def __init__(self, home_id: str, config: MemoryConfig) -> None:
                super().__init__(home_id, config, manager)

        self.resolved = Resolved(
            "mine", "memory", Here, MemoryConfig(), MemoryOptions(), LaunchSettings(), Limits()
        )

    def kernel(self, kernel_id: str = "k") -> Kernel:
        return Kernel(self.home, kernel_id)

    def wish(self, limits: Limits | None = None, **settings: float) -> Wish:
        launch = self.resolved.launch.model_copy(update=settings)
        resolved = replace(self.resolved, launch=launch, limits=limits or Limits())
        return Wish("python3", Spec(["kernel"], {}), resolved, {}, Host({}, None, "user"))

    async def job(self, kernel_id: str = "k", launch: int = 1) -> MemoryJob:
        """The job of this launch, once the manager has it."""
        mark = Mark(self.home.home_id, kernel_id, launch)
        while not self.manager.live(mark):
            await asyncio.sleep(0.01)
        return self.manager.live(mark)[0]

    async def line(self, kernel_id: str = "k", launch: int = 1) -> Line:
        await self.job(kernel_id, launch)
        return self.home.switchboard.lines[Mark(self.home.home_id, kernel_id, launch)]

    async def started(self, kernel: Kernel, wish: Wish, start: int = 1) -> Connection:
        """Start a kernel whose agent says at once that it is ready."""
        starting = asyncio.create_task(kernel.start(wish))
        await asyncio.sleep(0.01)
        assert kernel.start_number == start
        line = await self.line(kernel.kernel_id, kernel.launch_number)
        line.heard(Report(start=start, phase="ready", pid=7))
        return await starting

    def nothing_is_left(self) -> bool:
        sockets = [path for path in self.home.rundir.path.iterdir() if path.is_dir()]
        return not (self.manager.live() or sockets or self.home.switchboard.lines)


@pytest.fixture
def rundir() -> Iterator[RunDirectory]:
    with tempfile.TemporaryDirectory(prefix="ew") as base:
        directory = RunDirectory(Path(base))
        yield directory
        directory.remove()


@pytest.fixture
async def site(rundir: RunDirectory) -> AsyncIterator[Site]:
    home = Home(Switchboard(), rundir, IDENTITY)
    yield Site(home, MemoryManager())
    await home.aclose()


async def test_a_kernel_that_waits_shows_the_managers_reason_and_gives_up_with_it(site: Site) -> None:
    site.manager.runs_after = None
    kernel = site.kernel()
    starting = asyncio.create_task(kernel.start(site.wish(queue_timeout=30)))
    job = await site.job()
    site.manager.wait(job, "Resources")
    await asyncio.sleep(10)
    assert kernel.status == "queued: Resources"
    assert kernel.poll() is None
    with pytest.raises(LaunchFailed, match=r"waited 30 s in the queue.*Resources") as failure:
        await starting
    assert failure.value.step == "queue"
    assert site.nothing_is_left()


async def test_a_no_of_the_manager_is_told_in_its_words(site: Site) -> None:
    site.manager.rejects = "Invalid account"
    with pytest.raises(LaunchFailed, match="Invalid account") as failure:
        await site.kernel().start(site.wish())
    assert failure.value.step == "submit"
    assert site.nothing_is_left()


async def test_a_job_that_dies_at_once_is_told_with_the_last_lines_of_its_log(site: Site) -> None:
    starting = asyncio.create_task(site.kernel().start(site.wish()))
    job = await site.job()
    await asyncio.sleep(5)
    job.log.append("no such file")
    site.manager.end(job, "FAILED", exit_code=1)
    with pytest.raises(LaunchFailed, match="FAILED") as failure:
        await starting
    assert (failure.value.step, failure.value.log) == ("agent", ("no such file",))
    assert site.nothing_is_left()


async def test_an_agent_that_never_calls_home_is_told_after_the_start_timeout(site: Site) -> None:
    with pytest.raises(LaunchFailed, match="did not call home within 20 s") as failure:
        await site.kernel().start(site.wish(start_timeout=20))
    assert failure.value.step == "agent"
    assert site.nothing_is_left()


async def test_time_in_the_queue_does_not_count_for_the_start_timeout(site: Site) -> None:
    site.manager.runs_after = 500
    kernel = site.kernel()
    starting = asyncio.create_task(kernel.start(site.wish(start_timeout=20)))
    job = await site.job()
    await asyncio.sleep(510)
    assert job.phase.value == "running"
    line = await site.line()
    line.heard(Report(start=1, phase="ready"))
    await starting
    await kernel.end()
    assert site.nothing_is_left()


async def test_a_kernel_that_exits_while_it_starts_is_told_with_its_log(site: Site) -> None:
    starting = asyncio.create_task(site.kernel().start(site.wish()))
    line = await site.line()
    line.heard(Report(start=1, phase="exited", exit_code=3, step="exit", reason="exit 3", log=["boom"]))
    with pytest.raises(LaunchFailed, match="exit 3") as failure:
        await starting
    assert (failure.value.step, failure.value.log) == ("kernel", ("boom",))
    assert site.nothing_is_left()


async def test_a_cancelled_start_leaves_nothing(site: Site) -> None:
    starting = asyncio.create_task(site.kernel().start(site.wish()))
    await site.job()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert site.nothing_is_left()


async def test_a_restart_keeps_job_launch_and_endpoints(site: Site) -> None:
    kernel = site.kernel()
    first = await site.started(kernel, site.wish())
    where = kernel.where
    line = await site.line()
    line.heard(Report(start=1, phase="exited", exit_code=0))
    assert kernel.poll() == 0
    for port in first.ports.values():
        os.unlink(f"{first.ip}-{port}")
    second = await site.started(kernel, site.wish(), start=2)
    assert (kernel.launch_number, kernel.start_number) == (1, 2)
    assert (second, kernel.where) == (first, where)
    assert kernel.poll() is None
    assert all(Path(f"{first.ip}-{port}").is_socket() for port in first.ports.values())
    assert len(site.manager.jobs) == 1
    await kernel.end()
    assert site.nothing_is_left()


async def test_the_end_of_the_job_is_told_with_its_reason_and_a_new_start_is_a_new_launch(site: Site) -> None:
    kernel = site.kernel()
    await site.started(kernel, site.wish())
    site.manager.end(await site.job(), "OOMKilled", exit_code=-9)
    assert await kernel.exited() == -9
    assert kernel.job_lost
    assert "OOMKilled" in kernel.reason
    starting = asyncio.create_task(kernel.start(site.wish()))
    line = await site.line(launch=2)
    line.heard(Report(start=1, phase="ready"))
    await starting
    assert (kernel.launch_number, kernel.job_lost, kernel.poll()) == (2, False, None)
    await kernel.end()
    assert site.nothing_is_left()


async def test_a_kernels_own_exit_is_not_the_loss_of_its_job(site: Site) -> None:
    kernel = site.kernel()
    await site.started(kernel, site.wish())
    line = await site.line()
    line.heard(Report(start=1, phase="exited", exit_code=-11, reason="the kernel was ended by SIGSEGV"))
    assert (kernel.poll(), kernel.job_lost) == (-11, False)
    assert "SIGSEGV" in kernel.reason
    await kernel.end()


async def test_after_its_last_start_the_job_ends_with_the_kernel(site: Site) -> None:
    kernel = site.kernel()
    await site.started(kernel, site.wish())
    kernel.last_start = True
    job, line = await site.job(), await site.line()
    line.heard(Report(start=1, phase="exited", exit_code=0))
    while job.live:
        await asyncio.sleep(0.01)
    await kernel.end()
    assert (kernel.poll(), kernel.job_lost) == (0, False)
    assert site.nothing_is_left()


async def test_a_manager_that_falls_silent_ends_no_kernel(site: Site) -> None:
    kernel = site.kernel()
    await site.started(kernel, site.wish())
    site.manager.down = True
    await asyncio.sleep(3600)
    assert kernel.poll() is None
    site.manager.down = False
    await kernel.end()
    assert site.nothing_is_left()


async def test_no_more_kernels_than_the_cluster_allows(site: Site) -> None:
    one, two = site.kernel("one"), site.kernel("two")
    await site.started(one, site.wish(Limits(kernels=1)))
    with pytest.raises(LaunchFailed, match=r"all 1 kernels.*limits\.kernels"):
        await two.start(site.wish(Limits(kernels=1)))
    await one.end()
    await site.started(two, site.wish(Limits(kernels=1)))
    await two.end()
    assert site.nothing_is_left()


async def test_a_later_start_supersedes_one_that_still_waits(site: Site) -> None:
    kernel = site.kernel()
    first = asyncio.create_task(kernel.start(site.wish()))
    line = await site.line()
    second = asyncio.create_task(kernel.start(site.wish()))
    while kernel.start_number < 2:
        await asyncio.sleep(0.01)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    line.heard(Report(start=2, phase="ready"))
    await second
    assert kernel.poll() is None
    assert len(site.manager.live()) == 1
    await kernel.end()
    assert site.nothing_is_left()


@pytest.mark.parametrize("turns", range(12))
async def test_a_kernel_that_is_ended_at_any_moment_of_its_start_is_not_started(
    site: Site, turns: int
) -> None:
    kernel = site.kernel()
    starting = asyncio.create_task(kernel.start(site.wish()))
    for _ in range(turns + 1):
        await asyncio.sleep(0)
    await kernel.end()
    with pytest.raises((KernelGone, LaunchFailed, FileNotFoundError)):
        await asyncio.wait_for(starting, 30)
    assert site.nothing_is_left()


async def test_each_change_of_its_standing_is_told(site: Site) -> None:
    site.manager.runs_after = None
    kernel = site.kernel()
    seen: list[tuple[str, str]] = []

    def look() -> None:
        standing = kernel.standing
        if not seen or seen[-1] != (standing.state, standing.reason):
            seen.append((standing.state, standing.reason))

    kernel.changes.listener = look
    starting = asyncio.create_task(kernel.start(site.wish()))
    job = await site.job()
    site.manager.wait(job, "Resources")
    await asyncio.sleep(5)
    site.manager.run(job)
    await asyncio.sleep(5)
    line = await site.line()
    line.heard(Report(start=1, phase="starting"))
    line.heard(Report(start=1, phase="ready", warnings=["mind the gap"], spooled=7))
    await starting
    line.heard(Report(start=1, phase="ready", execution_state="busy"))
    line.heard(Report(start=1, phase="exited", exit_code=1, reason="the kernel exited with code 1"))
    await kernel.end()
    told = [state for state, _ in seen]
    assert told == ["asked", "queued", "queued", "running", "starting", "idle", "busy", "exited", "dead"]
    assert ("queued", "Resources") in seen
    assert seen[-1] == ("dead", "the kernel exited with code 1")
    assert (kernel.standing.cluster, kernel.standing.backend) == ("mine", "memory")
    assert kernel.standing.job_id == job.job_id, "what it was is still told"


async def test_what_is_shown_is_of_the_start_of_now(site: Site) -> None:
    kernel = site.kernel()
    await site.started(kernel, site.wish())
    line = await site.line()
    line.heard(Report(start=1, phase="ready", warnings=["mind the gap"], spooled=7))
    assert (kernel.standing.warnings, kernel.standing.spooled) == (("mind the gap",), 7)
    again = asyncio.create_task(kernel.start(site.wish()))
    await asyncio.sleep(0.01)
    assert kernel.standing.state == "starting"
    assert kernel.standing.warnings == ()
    line.heard(Report(start=2, phase="ready"))
    await again
    assert kernel.standing.state == "idle"
    assert [name for name, _ in kernel.standing.steps] == ["asked", "kernel ready"]
    await kernel.end()


@pytest.mark.parametrize(
    ("reports", "idle"),
    [
        ([Report(1, "ready", idle=100.0)], 100),
        ([Report(1, "ready", idle=5.0), Report(1, "ready", idle=15.0)], 15),
        ([Report(1, "ready", idle=5.0), Report(1, "ready", idle=float("nan"))], 5),
        ([Report(1, "ready", idle=5.0), Report(1, "ready", idle=float("inf"))], 5),
        ([Report(1, "ready", execution_state="busy")], 0),
        ([Report(1, "ready", execution_state="busy"), Report(1, "ready", execution_state="idle")], 0),
    ],
)
async def test_its_agent_tells_when_it_was_last_in_use(
    site: Site, reports: list[Report], idle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = site.kernel()
    await site.started(kernel, site.wish())
    monkeypatch.setattr("elsewhere.kernels.time.time", lambda: 1_000_000.0)
    line = await site.line()
    for report in reports:
        line.heard(report)
    assert kernel.active_at == 1_000_000 - idle
    await kernel.end()


async def test_an_agent_that_does_not_tell_is_believed_idle_from_its_last_busy_report(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    kernel = site.kernel()
    await site.started(kernel, site.wish())
    monkeypatch.setattr("elsewhere.kernels.time.time", lambda: now[0])
    line = await site.line()
    for moment, state, active in ((1001, "busy", 1001), (1009, "idle", 1009), (1020, "idle", 1009)):
        now[0] = moment
        line.heard(Report(1, "ready", execution_state=state, cpu=moment))
        assert kernel.active_at == active
    await kernel.end()


async def test_an_end_before_the_submit_is_the_end_of_the_start(site: Site) -> None:
    """At whatever of its turns the start is: nothing is submitted that nobody would end."""
    for turns in range(20):
        kernel = site.kernel(f"k{turns}")
        starting = asyncio.create_task(kernel.start(site.wish()))
        for _ in range(turns + 1):
            await asyncio.sleep(0)
        await kernel.end()
        with pytest.raises(LaunchFailed):
            await asyncio.wait_for(starting, 30)
        assert site.nothing_is_left()


async def test_a_start_hears_of_its_kernels_end_though_the_job_does_not_go(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = site.kernel()
    starting = asyncio.create_task(kernel.start(site.wish(start_timeout=3600)))
    await site.line()

    async def ignored(*_: object, **__: object) -> None:
        """The manager takes the cancellation and does nothing."""

    monkeypatch.setattr(MemoryBackend, "cancel", ignored)
    await kernel.end()
    with pytest.raises(LaunchFailed, match="the kernel was ended while it was starting"):
        await asyncio.wait_for(starting, 60)
