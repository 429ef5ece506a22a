"""Where the laws of kernels are tried: one home, real kernels on one manager, a stock client of each."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import zmq.asyncio

from elsewhere.backend import Backend, JobId, Mark, Phase, Sighting, Signals
from elsewhere.errors import LaunchFailed, NeverSubmitted
from elsewhere.home import Home
from elsewhere.identity import Identity
from elsewhere.kernels import Kernel
from elsewhere.launch import Host
from elsewhere.records import KernelRecord, NoRecords
from elsewhere.rundir import RunDirectory
from elsewhere.settings import LaunchSettings
from elsewhere.testing.lab_kernel import Execution, LabKernel, within
from elsewhere.testing.subject import Subject
from elsewhere.testing.witness import LawBroken
from elsewhere.wish import Wish

POLL = 0.05
"""Seconds between two looks at the manager, where nothing tells of a change."""

STOP_GRACE = 1.0
"""Seconds that a kernel, and then its job, has to end before force is used."""


class MemoryRecords(NoRecords):
    """Records that live longer than a home: what its next life finds."""

    def __init__(self) -> None:
        self.kernels: dict[str, KernelRecord] = {}

    async def launching(self, record: KernelRecord) -> None:
        """Keep it."""
        self.kernels[record.kernel_id] = record

    async def starting(self, kernel_id: str, start: int, asked: Mapping[str, object]) -> None:
        """Keep that it was ordered."""
        self.kernels[kernel_id] = replace(self.kernels[kernel_id], start=start, asked=asked)

    async def token_used(self, mark: Mark, secret_hash: str) -> None:
        """Keep who used it."""
        record = self.kernels.get(mark.kernel_id)
        if record is not None and record.launch == mark.launch:
            self.kernels[mark.kernel_id] = replace(record, secret_hash=secret_hash)

    async def ended(self, kernel_id: str) -> None:
        """Strike it out."""
        self.kernels.pop(kernel_id, None)


@dataclass
class Spec:
    """A kernelspec without files."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    resource_dir: str = ""


class KernelLab:
    """One home and its kernels. ``backend`` is a witness: another object on the same manager."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.identity = Identity.create()
        self.records = MemoryRecords()
        self.backend: Backend[Any, Any] = subject.backend(self.home_id, subject.resolved().config)
        self.home: Home | None = None
        self._switchboard = subject.switchboard
        self._context = zmq.asyncio.Context()
        self._kernels: list[LabKernel] = []
        self._tasks_before: set[asyncio.Task[Any]] = set()

    @property
    def home_id(self) -> str:
        """The id that is stamped on all jobs of this lab."""
        return self.identity.home_id

    @property
    def patience(self) -> float:
        """Seconds that anything may take."""
        return self.subject.patience

    async def open(self) -> None:
        """Open the home."""
        self._tasks_before = asyncio.all_tasks()
        await self._open_home()

    async def _open_home(self) -> None:
        rundir = RunDirectory()
        try:
            home = Home(
                self._switchboard,
                rundir,
                self.identity,
                records=self.records,
                orphan_grace=2 * self.patience,
            )
            await home.open()
        except BaseException:
            rundir.remove()
            raise
        self.home = home
        self._switchboard = self._switchboard.model_copy(update={"port": home.port})

    # ---- kernels

    def kernel(
        self, *, argv: Sequence[str] | None = None, env: Mapping[str, str] | None = None, **options: object
    ) -> LabKernel:
        """Return a kernel to be started."""
        assert self.home is not None
        launch = LaunchSettings(
            queue_timeout=2 * self.patience, start_timeout=2 * self.patience, stop_grace=STOP_GRACE
        )
        wish = Wish(
            kernel_name="python3",
            spec=Spec(list(argv if argv is not None else self.subject.argv)),
            resolved=self.subject.resolved(launch=launch, **options),
            start={"env": dict(env or {})},
            host=Host({}, None, "user"),
        )
        kernel = LabKernel(
            Kernel(self.home, f"law-{secrets.token_hex(4)}"), wish, self.patience, self._context
        )
        self._kernels.append(kernel)
        return kernel

    async def start(self, **wishes: Any) -> LabKernel:
        """Return a kernel that has been started and answers. Raises LawBroken."""
        kernel = self.kernel(**wishes)
        await kernel.start()
        return kernel

    async def signal_agent(self, kernel: LabKernel, signum: int) -> None:
        """Have an agent get a signal, from its own kernel. Skips the law where nobody can send it one."""
        parent = (await kernel.run("import os; print(os.getppid())")).text.strip()
        if parent != "1":
            kernel.begin(f"os.kill({parent}, {signum})")
        elif isinstance(self.backend, Signals):  # the first process of a container takes none from within
            await self.backend.signal(kernel.job_id, signum)
        else:
            pytest.skip("the agent is process 1 of its job, and this backend cannot send signals")

    # ---- the manager

    async def live(self) -> list[Sighting]:
        """Return the jobs of this home that are not over, as one survey of the witness shows them."""
        observation = await self.backend.survey()
        return [one for one in observation.sightings if one.phase is not Phase.ENDED]

    async def seen(self, kernel: LabKernel) -> list[Sighting]:
        """Return the jobs of this kernel that are not over."""
        return [one for one in await self.live() if one.kernel_id == kernel.kernel.kernel_id]

    async def nothing_left(self) -> None:
        """Wait until the manager has no job of this home any more. Raises LawBroken."""
        if left := await self._left():
            raise LawBroken(f"the manager still has, after {self.patience:g} s: {left}")

    async def _left(self) -> list[Sighting]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.patience
        while True:
            left = await self.live()
            if not left or loop.time() > deadline:
                return left
            await asyncio.sleep(POLL)

    # ---- home

    async def home_dies(self, *heard: Execution) -> None:
        """As if its process were killed: it says goodbye to nobody, and strikes nothing out.

        What it has given to clients by then is read by those who ``heard``: it may not come again.
        """
        assert self.home is not None
        home, self.home = self.home, None
        home.leaves_kernels = True
        for line in list(home.switchboard.lines.values()):
            line.hang_up("home was killed")
        await home.switchboard.aclose()
        for execution in heard:
            await execution.rest()
        for kernel in self._kernels:
            kernel.hang_up()
            kernel.kernel.leave()
        await home.aclose()

    async def home_returns(self) -> None:
        """As if it were started anew, with its identity, port and records. Raises LawBroken."""
        await self._open_home()
        assert self.home is not None
        for one in self._kernels:
            record = self.records.kernels.get(one.kernel.kernel_id)
            if record is None:
                continue
            one.kernel = Kernel(self.home, record.kernel_id)
            one.connect(await one.kernel.resume(record, one.wish))
        for one in self._kernels:
            try:
                await within(self.patience, one.kernel.taken_up(one.wish), "the kernel is taken up")
            except (LaunchFailed, NeverSubmitted) as failure:
                raise LawBroken(f"home returned and did not find its kernel: {failure}") from failure

    # ---- the end

    async def aclose(self) -> list[str]:
        """End all that was started, whatever became of it; return what is left after that, in words."""
        try:
            left = [f"the manager still has {sighting}" for sighting in await self._end_kernels()]
        finally:
            if self.home is not None:
                await self.home.aclose()
            await self.backend.close()
            self._context.destroy(linger=0)
        return left + [f"a task still runs: {task!r}" for task in await self._tasks()]

    async def _end_kernels(self) -> list[Sighting]:
        for kernel in self._kernels:
            kernel.hang_up()
        await asyncio.gather(*(kernel.kernel.end() for kernel in self._kernels))
        if self.home is None:
            await self._cancel(await self.live())
        left = await self._left()
        await self._cancel(left)
        return left

    async def _cancel(self, sightings: Sequence[Sighting]) -> None:
        for sighting in sightings:
            await self.backend.cancel(sighting.job_id, grace=0.0)

    async def _tasks(self) -> list[asyncio.Task[Any]]:
        known = {*self._tasks_before, asyncio.current_task()}
        tasks = asyncio.all_tasks() - known
        if tasks:
            await asyncio.wait(tasks, timeout=POLL)
        return [task for task in tasks if not task.done()]


@asynccontextmanager
async def open_kernel_lab(subject: Subject) -> AsyncIterator[KernelLab]:
    """Lend a lab, and leave nothing of it on the manager, whatever happened in it.

    Raises LawBroken if something was left that had to be ended by force, or could not be;
    NotImplementedError if the backend is not written so far that a kernel could be tried.
    """
    await _check_written(subject)
    lab = KernelLab(subject)
    left: list[str] = []
    try:
        await lab.open()
        yield lab
    finally:
        left = await lab.aclose()
    if left:
        raise LawBroken("; ".join(left))


async def _check_written(subject: Subject) -> None:
    resolved = subject.resolved()
    backend = resolved.backend(secrets.token_hex(5), resolved.config)
    try:
        await backend.survey()
        await backend.cancel(JobId("none"), grace=0)
    finally:
        await backend.close()
