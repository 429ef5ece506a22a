"""Where the laws of kernels are tried: one home, real kernels on one manager, a stock client of each."""

from __future__ import annotations

import asyncio
import queue
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient

from elsewhere.backend import Backend, JobId, Mark, Phase, Sighting, Signals
from elsewhere.errors import LaunchFailed, NeverSubmitted
from elsewhere.home import Home
from elsewhere.identity import Identity
from elsewhere.kernels import Kernel
from elsewhere.launch import Host
from elsewhere.records import KernelRecord, NoRecords
from elsewhere.rundir import RunDirectory
from elsewhere.settings import LaunchSettings
from elsewhere.testing.subject import Subject
from elsewhere.testing.witness import LawBroken
from elsewhere.wish import Connection, Wish

POLL = 0.05
"""Seconds between two looks at the manager, where nothing tells of a change."""

STOP_GRACE = 1.0
"""Seconds that a kernel, and then its job, has to end before force is used."""

GREETING = 1.0
"""Seconds after which a kernel is greeted once more: a restart may have taken the greeting with it."""

SETTLED = 0.25
"""Seconds of silence after which all that was given to a client has been read."""

Message = dict[str, Any]


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


class Execution:
    """What comes of one request to execute. ``messages``: what was published of it, as far as it was read."""

    def __init__(self, of: LabKernel, request: str) -> None:
        self.messages: list[Message] = []
        self._of = of
        self._request = request

    @property
    def text(self) -> str:
        """All that was printed, as far as it was read."""
        return self.printed("stdout", "stderr")

    @property
    def value(self) -> str:
        """The value of the last expression, as text."""
        return "".join(one["content"]["data"]["text/plain"] for one in self.of_kind("execute_result"))

    def printed(self, *streams: str) -> str:
        """Return what was printed to these streams, as far as it was read."""
        streamed = [one["content"] for one in self.of_kind("stream")]
        return "".join(content["text"] for content in streamed if content["name"] in streams)

    def of_kind(self, kind: str) -> list[Message]:
        """Return the messages of this type, as far as they were read."""
        return [one for one in self.messages if one["msg_type"] == kind]

    async def until_printed(self, text: str) -> None:
        """Read until that was printed. Raises LawBroken."""
        while text not in self.text:
            await self._read(f"{text!r} is printed (so far: {self.text[-200:]!r})")

    async def until_asked(self) -> None:
        """Wait until the code asks for input. Raises LawBroken."""
        await self._of.heard("stdin", self._request, "the code asks for input")

    async def output(self) -> None:
        """Read to the end of its output. Raises LawBroken."""
        while not any(one["content"]["execution_state"] == "idle" for one in self.of_kind("status")):
            await self._read(f"the output ends (so far: {self.text[-200:]!r})")

    async def rest(self) -> None:
        """Read what its client has been given already."""
        try:
            while True:
                self.messages.append(await self._of.heard("iopub", self._request, "more", SETTLED))
        except Silence:
            return

    async def reply(self) -> Message:
        """Read to the end of its output, and return the content of the reply. Raises LawBroken."""
        await self.output()
        message = await self._of.heard("shell", self._request, "the reply comes")
        content: Message = message["content"]
        return content

    async def _read(self, what: str) -> None:
        self.messages.append(await self._of.heard("iopub", self._request, what))


class LabKernel:
    """A kernel that is tried, and one client of it.

    Waits no longer than ``patience`` for anything, and for no answer of a kernel that is over.
    """

    def __init__(self, kernel: Kernel, wish: Wish, patience: float, context: zmq.asyncio.Context) -> None:
        self.kernel = kernel
        self.wish = wish
        self._patience = patience
        self._context = context
        self._client: AsyncKernelClient | None = None

    @property
    def job_id(self) -> JobId:
        """The id of its job. Raises LawBroken while there is none."""
        job_id = self.kernel.where[1]
        if job_id is None:
            raise LawBroken(f"kernel {self.kernel.kernel_id} does not know the id of its job")
        return JobId(job_id)

    async def start(self) -> None:
        """Start it, in its job if there is one, and greet it. Raises LawBroken if it does not come up."""
        try:
            connection = await self.kernel.start(self.wish)
        except LaunchFailed as failure:
            raise LawBroken(str(failure)) from failure
        if self._client is None:
            self.connect(connection)
        await self.greet()

    def connect(self, connection: Connection) -> None:
        """Be its client from now on."""
        client = AsyncKernelClient(context=self._context)
        ports = {name: int(port) for name, port in connection.ports.items()}
        client.load_connection_info(
            {
                "transport": "ipc",
                "ip": connection.ip,
                "key": connection.key.encode(),
                "signature_scheme": connection.signature_scheme,
                **ports,  # type: ignore[typeddict-item]
            }
        )
        client.start_channels(hb=False)
        self._client = client

    def hang_up(self) -> None:
        """Be its client no longer."""
        if self._client is not None:
            self._client.stop_channels()
            self._client = None

    async def greet(self) -> None:
        """Wait until it answers. Raises LawBroken."""
        deadline = self._now() + self._patience
        while True:
            request = self._channels.kernel_info()
            try:
                await self.heard("shell", request, "the kernel answers", GREETING)
                return
            except Silence:
                if self._now() > deadline:
                    raise

    async def silent(self) -> None:
        """Wait until it does not answer any more, although it is not over. Raises LawBroken."""
        deadline = self._now() + self._patience
        while self._now() < deadline:
            try:
                await self.heard("shell", self._channels.kernel_info(), "an answer", GREETING)
            except Silence:
                return
        raise LawBroken(f"it still answers after {self._patience:g} s")

    async def run(self, code: str) -> Execution:
        """Execute code to its end. Raises LawBroken if it raises."""
        execution = self.begin(code)
        reply = await execution.reply()
        if reply["status"] != "ok":
            raise LawBroken(f"{code!r} raised {reply.get('ename')}: {reply.get('evalue')}")
        return execution

    def begin(self, code: str) -> Execution:
        """Have code executed, and wait for nothing."""
        return Execution(self, self._channels.execute(code, allow_stdin=True))

    def answer(self, text: str) -> None:
        """Give the code the input that it asks for."""
        self._channels.input(text)

    async def heard(self, channel: str, request: str, what: str, timeout: float | None = None) -> Message:
        """Return the next message on this channel that is of this request. Raises LawBroken."""
        deadline = self._now() + (timeout or self._patience)
        source = getattr(self._channels, f"{channel}_channel")
        while True:
            left = max(deadline - self._now(), 0.0)
            receiving = asyncio.ensure_future(source.get_msg(timeout=left))
            try:
                await self._unless_over(receiving, what)
                message: Message = receiving.result()
            except queue.Empty:
                raise Silence(f"not within {timeout or self._patience:g} s: {what}") from None
            finally:
                receiving.cancel()
                await asyncio.wait({receiving})
            if message["parent_header"].get("msg_id") == request:
                return message

    async def _unless_over(self, receiving: asyncio.Future[Message], what: str) -> None:
        while not receiving.done():
            change = self.kernel.changes.next()
            if self.kernel.poll() is not None:
                change.cancel()
                raise LawBroken(f"the kernel is over before {what}: {self.kernel.reason}")
            either: set[asyncio.Future[Any]] = {receiving, change}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            change.cancel()

    async def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait for something that changes with the kernel. Raises LawBroken."""
        deadline = self._now() + self._patience
        while True:
            change = self.kernel.changes.next()
            try:
                if holds():
                    return
                if self._now() >= deadline:
                    standing = self.kernel.standing
                    raise LawBroken(
                        f"not within {self._patience:g} s: {what} (it is {standing.state}: {standing.status})"
                    )
                await asyncio.wait({change}, timeout=deadline - self._now())
            finally:
                change.cancel()

    async def exited(self) -> int:
        """Wait until it is over, and return the exit code that is told. Raises LawBroken."""
        await self.until(lambda: self.kernel.poll() is not None, "the end of the kernel is told")
        exit_code = self.kernel.poll()
        assert exit_code is not None
        return exit_code

    async def interrupt(self) -> None:
        """Send SIGINT. Raises LawBroken if nobody says that this was done."""
        await within(self._patience, self.kernel.signal(signal.SIGINT), "the agent passes on a signal")

    async def restart(self) -> None:
        """End the kernel's process if it runs, and start it anew. Raises LawBroken."""
        if self.kernel.poll() is None:
            await within(self._patience, self.kernel.signal(signal.SIGKILL), "the agent passes on a signal")
        await self.exited()
        await self.start()

    async def stop(self) -> None:
        """End kernel and job, as a front end does that is told to shut down."""
        self.hang_up()
        await self.kernel.end()

    @property
    def _channels(self) -> AsyncKernelClient:
        if self._client is None:
            raise LawBroken(f"kernel {self.kernel.kernel_id} has no client")
        return self._client

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


class Silence(LawBroken):
    """Nothing was heard in time."""


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


async def within(patience: float, work: Awaitable[object], what: str) -> None:
    """Wait for it. Raises LawBroken once that took too long."""
    try:
        await asyncio.wait_for(work, patience)
    except asyncio.TimeoutError as error:
        raise LawBroken(f"not within {patience:g} s: {what}") from error


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
