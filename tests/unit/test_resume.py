"""A kernel that an earlier life of its home launched, on a manager in memory: virtual time."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_kernels import IDENTITY, Site

from elsewhere.agent.words import Report
from elsewhere.doors import Doors
from elsewhere.errors import CoreClosed, LaunchFailed, NeverSubmitted
from elsewhere.home import Home
from elsewhere.kernels import Kernel
from elsewhere.records import KernelRecord
from elsewhere.rundir import RunDirectory
from elsewhere.settings import Switchboard
from elsewhere.testing.kernel_lab import MemoryRecords
from elsewhere.testing.memory import MemoryManager
from elsewhere.wish import Wish

pytestmark = pytest.mark.looptime


class Notes(MemoryRecords):
    """Records in memory: what the next life of home finds, and what was struck out."""

    def __init__(self) -> None:
        super().__init__()
        self.struck: list[str] = []

    async def ended(self, kernel_id: str) -> None:
        self.struck.append(kernel_id)
        await super().ended(kernel_id)


class Lives:
    """Lives of one home, on one manager, with one ledger."""

    def __init__(self) -> None:
        self.notes = Notes()
        self.manager = MemoryManager()
        self._homes: list[Home] = []
        self._kernels: list[Kernel] = []

    def begin(self) -> Site:
        rundir = RunDirectory(Path(tempfile.mkdtemp(prefix="ew")))
        home = Home(Switchboard(), rundir, IDENTITY, records=self.notes)
        self._homes.append(home)
        return Site(home, self.manager)

    def kernel(self, site: Site) -> Kernel:
        kernel = site.kernel()
        self._kernels.append(kernel)
        return kernel

    async def resumed(self, site: Site, wish: Wish) -> Kernel:
        kernel = self.kernel(site)
        await kernel.resume(self.notes.kernels["k"], wish)
        return kernel

    async def end(self) -> None:
        for kernel in self._kernels:
            kernel.leave()
        for home in self._homes:
            await home.aclose()


@pytest.fixture
async def lives() -> AsyncIterator[Lives]:
    one = Lives()
    yield one
    await one.end()


async def test_a_kernel_that_runs_is_taken_up_when_its_agent_calls(lives: Lives) -> None:
    before = lives.begin()
    kernel = lives.kernel(before)
    await before.started(kernel, before.wish())
    lives.notes.kernels["k"] = replace(lives.notes.kernels["k"], secret_hash="hash")
    after = lives.begin()
    again = await lives.resumed(after, after.wish(start_timeout=20))
    taking = asyncio.create_task(again.taken_up(after.wish()))
    await asyncio.sleep(3600)
    assert not taking.done(), "an agent that is out of reach for long is not a launch that fails"
    (await after.line()).heard(Report(1, "ready"))
    await taking
    assert (again.poll(), again.launch_number, again.start_number) == (None, 1, 1)
    assert len(lives.manager.jobs) == 1
    await again.end()
    assert lives.notes.struck == ["k"]


async def test_a_launch_that_was_never_submitted_is_told(lives: Lives) -> None:
    site = lives.begin()
    record = KernelRecord("k", "python3", "", 1, 1, {}, {}, "key", "hmac-sha256", "hash")
    await lives.notes.launching(record)
    kernel = await lives.resumed(site, site.wish())
    with pytest.raises(NeverSubmitted):
        await kernel.taken_up(site.wish())
    starting = asyncio.create_task(kernel.start(site.wish()))
    line = await site.line(launch=2)
    line.heard(Report(1, "ready"))
    await starting
    assert lives.notes.kernels["k"].launch == 2
    assert lives.notes.struck == [], "there was no moment in which the ledger did not know it"
    await kernel.end()


async def test_a_submit_that_was_cut_short_is_told_as_none(lives: Lives) -> None:
    before = lives.begin()
    lives.manager.runs_after = None
    starting = asyncio.create_task(lives.kernel(before).start(before.wish()))
    await before.job()
    after = lives.begin()
    again = await lives.resumed(after, after.wish())
    taking = asyncio.create_task(again.taken_up(after.wish()))
    await asyncio.sleep(5)
    assert again.status.startswith("queued")
    (await after.job()).forgotten = True
    with pytest.raises(NeverSubmitted):
        await taking
    starting.cancel()
    await asyncio.wait({starting})


async def test_a_job_that_was_cancelled_while_it_waited_is_not_submitted_again(lives: Lives) -> None:
    before = lives.begin()
    lives.manager.runs_after = None
    starting = asyncio.create_task(lives.kernel(before).start(before.wish()))
    job = await before.job()
    after = lives.begin()
    again = await lives.resumed(after, after.wish())
    lives.manager.end(job, "CANCELLED by root")
    with pytest.raises(LaunchFailed, match="CANCELLED by root"):
        await again.taken_up(after.wish())
    starting.cancel()
    await asyncio.wait({starting})


async def test_a_job_that_ended_while_nobody_watched_is_told_and_not_started_again(lives: Lives) -> None:
    before = lives.begin()
    await before.started(lives.kernel(before), before.wish())
    lives.notes.kernels["k"] = replace(lives.notes.kernels["k"], secret_hash="hash")
    lives.manager.end(await before.job(), "TIMEOUT")
    after = lives.begin()
    again = await lives.resumed(after, after.wish())
    with pytest.raises(LaunchFailed, match="TIMEOUT"):
        await again.taken_up(after.wish())
    assert again.job_lost


async def test_a_start_order_that_died_with_home_is_given_again(lives: Lives) -> None:
    before = lives.begin()
    kernel = lives.kernel(before)
    await before.started(kernel, before.wish())
    lives.notes.kernels["k"] = replace(lives.notes.kernels["k"], secret_hash="hash", start=2)
    after = lives.begin()
    again = await lives.resumed(after, after.wish())
    taking = asyncio.create_task(again.taken_up(after.wish()))
    line = await after.line()
    line.heard(Report(1, "exited", exit_code=0))
    await asyncio.sleep(1)
    ((command, _),) = line._commands.values()
    assert command.order is not None
    assert (command.verb, command.order["start"]) == ("start", 2)
    assert again.poll() is None, "the end of the kernel before is not this one's"
    line.heard(Report(2, "ready"))
    await taking


async def test_a_start_that_was_under_way_may_still_take_too_long(lives: Lives) -> None:
    before = lives.begin()
    starting = asyncio.create_task(lives.kernel(before).start(before.wish()))
    await before.job()
    await asyncio.sleep(1)
    record = lives.notes.kernels["k"]
    after = lives.begin()
    lives.notes.kernels["k"] = record
    again = await lives.resumed(after, after.wish(start_timeout=20))
    with pytest.raises(LaunchFailed, match="did not call home within 20 s"):
        await again.taken_up(after.wish())
    starting.cancel()
    await asyncio.wait({starting})


async def test_a_kernel_that_exited_meanwhile_is_taken_up_as_one_that_has_exited(lives: Lives) -> None:
    before = lives.begin()
    await before.started(lives.kernel(before), before.wish())
    lives.notes.kernels["k"] = replace(lives.notes.kernels["k"], secret_hash="hash")
    after = lives.begin()
    again = await lives.resumed(after, after.wish())
    taking = asyncio.create_task(again.taken_up(after.wish()))
    (await after.line()).heard(Report(1, "exited", exit_code=-11, reason="SIGSEGV"))
    await taking
    assert (again.poll(), again.reason, again.job_lost) == (-11, "SIGSEGV", False)


async def test_a_relaunch_is_never_struck_out_in_between(lives: Lives) -> None:
    site = lives.begin()
    kernel = lives.kernel(site)
    await site.started(kernel, site.wish())
    lives.manager.end(await site.job(), "OOMKilled")
    await kernel.exited()
    starting = asyncio.create_task(kernel.start(site.wish()))
    (await site.line(launch=2)).heard(Report(1, "ready"))
    await starting
    assert lives.notes.struck == []
    await kernel.end()
    assert lives.notes.struck == ["k"]


async def test_a_ledger_that_cannot_be_written_does_not_keep_a_job_from_its_end(lives: Lives) -> None:
    site = lives.begin()
    kernel = lives.kernel(site)
    await site.started(kernel, site.wish())

    async def full(kernel_id: str) -> None:
        raise OSError("no space left on device")

    lives.notes.ended = full  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no space"):
        await kernel.end()
    assert not lives.manager.live()


async def test_the_records_are_closed_when_no_agent_can_be_admitted_any_more(
    lives: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = lives.begin().home
    closed: list[str] = []

    async def close(what: str) -> None:
        closed.append(what)

    monkeypatch.setattr(home.switchboard, "aclose", lambda: close("switchboard"))
    monkeypatch.setattr(lives.notes, "aclose", lambda: close("records"))
    await home.aclose()
    assert closed == ["switchboard", "records"]


async def test_a_home_that_closes_in_the_middle_of_a_submit_leaves_it_to_its_next_life(lives: Lives) -> None:
    before = lives.begin()
    kernel = lives.kernel(before)
    written, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Notes):
        async def launching(self, record: KernelRecord) -> None:
            await super().launching(record)
            written.set()
            await go_on.wait()

    lives.notes = before.home.records = Slow()
    starting = asyncio.create_task(kernel.start(before.wish()))
    await written.wait()
    before.home.leaves_kernels = True
    kernel.leave()
    await before.home.roster(before.resolved).aclose()
    go_on.set()
    with pytest.raises(CoreClosed):
        await starting
    assert (list(lives.notes.kernels), lives.notes.struck) == (["k"], [])


async def test_what_home_leaves_runs_on_and_stays_in_its_records(lives: Lives) -> None:
    before = lives.begin()
    kernel = lives.kernel(before)
    await before.started(kernel, before.wish())
    before.home.leaves_kernels = True
    kernel.leave()
    await kernel.end()
    assert (len(lives.manager.live()), lives.notes.struck) == (1, [])


async def test_a_home_that_closes_while_a_kernels_doors_are_opened_says_so(
    lives: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lives.begin()
    kernel = lives.kernel(before)

    async def open_too_late(*_: object) -> None:
        before.home.leaves_kernels = True
        raise FileNotFoundError("the directory is gone")

    monkeypatch.setattr(Doors, "open", open_too_late)
    with pytest.raises(CoreClosed, match="home was closed before the job was submitted"):
        await kernel.start(before.wish())
    assert lives.notes.struck == []
