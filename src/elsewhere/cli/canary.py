"""What is done in each step of a canary's life, and what is found. One home, on the running loop."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jupyter_client.kernelspec import KernelSpec

from elsewhere import parcel
from elsewhere.backend import Mark, Phase, Sighting
from elsewhere.cli.advice import Facts
from elsewhere.cli.cells import FrontEnd
from elsewhere.cli.stanzas import read_spec, stanza_for, with_options
from elsewhere.errors import ElsewhereError, LaunchFailed
from elsewhere.home import ORPHAN_GRACE_ALONE, Home
from elsewhere.identity import Identity
from elsewhere.kernels import Kernel
from elsewhere.launch import Host, plan
from elsewhere.limits import capacity
from elsewhere.roster import Roster
from elsewhere.rundir import RunDirectory
from elsewhere.settings import load
from elsewhere.wish import Connection, Wish

STEPS = (
    "settings", "capacity", "reach the manager", "render", "submit", "queued", "running", "agent home",
    "kernel ready",
    "first reply", "interrupt", "restart", "stop", "nothing left",
)  # fmt: skip

_STEP_OF = {
    "submit": "submit",
    "queue": "queued",
    "agent": "agent home",
    "exec": "kernel ready",
    "kernel": "kernel ready",
}
"""Which step it is that a failed launch tells."""

_IPYKERNEL = ("-m", "ipykernel_launcher", "-f", "{connection_file}")
_RUNS = ("running", "starting", "idle", "busy", "exited")
_LOOK_AGAIN = 1.0

_SLEEP = "import time; print('asleep', flush=True); time.sleep(3600)"
_WHERE = "import platform; print(f'Python {platform.python_version()} on {platform.node()}')"
_SET, _GET = "elsewhere_canary = True", "print('elsewhere_canary' in dir())"


class Skipped(ElsewhereError):
    """A step that cannot be tried with this kernel."""


class NotAsExpected(ElsewhereError):
    """Something answered, and not what it should."""


@dataclass(frozen=True)
class Asked:
    """What a person asked for: a cluster or backend, options of the launch, perhaps a kernelspec."""

    where: str
    options: Mapping[str, str] = field(default_factory=dict)
    spec: str | None = None


@dataclass(frozen=True)
class Ready:
    """All that is there once the settings are known to be good."""

    home: Home
    kernel: Kernel
    wish: Wish
    mark: Mark

    @property
    def roster(self) -> Roster[Any, Any]:
        """That of the cluster."""
        return self.home.roster(self.wish.resolved)

    @property
    def spec(self) -> KernelSpec:
        """The kernelspec of the canary."""
        assert isinstance(self.wish.spec, KernelSpec)
        return self.wish.spec


class Canary:
    """``steps`` are called once each, in their order; ``stop`` and ``nothing left`` whatever came before.

    Each returns what it found; raises Skipped, or what is wrong.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.steps: Mapping[str, Callable[[], Coroutine[Any, Any, str]]] = dict(
            zip(
                STEPS,
                (
                    self._settings, self._capacity, self._reach, self._render, self._submit, self._queued,
                    self._running, self._agent_home, self._kernel_ready, self._first_reply, self._interrupt,
                    self._restart, self._stop, self._nothing_left,
                ),
                strict=True,
            )
        )  # fmt: skip
        self._ready: Ready | None = None
        self._starting: asyncio.Task[Connection] | None = None
        self._front_end: FrontEnd | None = None
        self._language = ""

    # ---- what may be read at any time

    @property
    def was_asked_for(self) -> bool:
        """Whether there may be a job to be ended."""
        return self._starting is not None

    @property
    def status(self) -> str:
        """Where the kernel stands, for a person; empty before it was asked for."""
        if self._ready is None or self._starting is None:
            return ""
        refused = self._ready.home.switchboard.figures.refused
        called = f"; {refused} caller(s) refused" if refused else ""
        return self._ready.kernel.status + called

    @property
    def facts(self) -> Facts:
        """What is known by now."""
        ready = self._ready
        if ready is None:
            return Facts(self.asked.where)
        standing = ready.kernel.standing
        grace = ready.wish.resolved.launch.orphan_grace
        return Facts(
            where=self.asked.where,
            backend=ready.wish.resolved.backend_name,
            home_id=ready.home.home_id,
            mark=str(ready.mark),
            job_id=standing.job_id or "",
            host=standing.host or "",
            addresses=ready.home.address.addresses,
            argv=ready.wish.spec.argv,
            connected=standing.connected,
            over=standing.state == "dead",
            orphan_grace=ORPHAN_GRACE_ALONE if grace is None else grace,
        )

    async def log(self, lines: int) -> Sequence[str]:
        """Return the last lines that the job printed, if there is a job and a way to read them."""
        return await self._ready.kernel.log(lines) if self._ready is not None else ()

    async def aclose(self) -> None:
        """Let go of everything in this process."""
        if self._front_end is not None:
            self._front_end.close()
        if self._ready is not None:
            await self._ready.home.aclose()

    # ---- before the launch

    async def _settings(self) -> str:
        settings = load()
        stanza = stanza_for(self.asked.where, settings)
        stanza, resolved = with_options(stanza, self.asked.options, settings, "doctor")
        here = resolved.backend_name == "local"
        name, spec = self.asked.spec or "python3", _ipykernel(sys.executable if here else "python3")
        if self.asked.spec is not None:
            spec = read_spec(self.asked.spec)
        host = Host.current()
        wish = Wish(name, spec, resolved, {}, host, host.username, stanza)
        rundir = RunDirectory()
        try:
            home = Home(settings.switchboard, rundir, Identity.create())
            parcel.agent_archive()
            await home.open()
        except BaseException:
            rundir.remove()
            raise
        kernel = Kernel(home, f"doctor-{secrets.token_hex(4)}")
        self._ready = Ready(home, kernel, wish, Mark(home.home_id, kernel.kernel_id, 1))
        addresses = ", ".join(home.address.addresses)
        return f"backend {resolved.backend_name}; home {home.home_id}, whose agents dial {addresses}"

    async def _capacity(self) -> str:
        return str(capacity())

    async def _reach(self) -> str:
        jobs = (await self._now.roster.backend.survey()).sightings
        return f"it answers: {len(jobs) or 'no'} job{'' if len(jobs) == 1 else 's'} of this home"

    async def _render(self) -> str:
        ready = self._now
        wish = ready.wish
        launch = plan(ready.mark, wish.kernel_name, wish.spec, wish.resolved, wish.start, wish.host)
        request = ready.roster.backend.render(launch)
        return f"a {type(request).__name__} for {ready.mark}"

    # ---- the launch

    async def _submit(self) -> str:
        ready = self._now
        self._starting = asyncio.ensure_future(ready.kernel.start(ready.wish))
        await self._until("submit", lambda: "submitted" in ready.kernel.steps)
        job_id = ready.kernel.standing.job_id
        return f"job {job_id}" if job_id else "taken; the manager's list will tell the job's id"

    async def _queued(self) -> str:
        kernel = self._now.kernel
        if any(sighting.phase is Phase.RUNNING for sighting in await self._sightings()):
            return "it did not have to wait"
        reasons: dict[str, None] = {}

        def runs() -> bool:
            standing = kernel.standing
            if standing.state == "queued" and standing.reason:
                reasons[standing.reason] = None
            return standing.state in _RUNS or "running" in kernel.steps

        await self._until("queued", runs)
        return f"waited: {', '.join(reasons)}" if reasons else "the manager gave no reason"

    async def _running(self) -> str:
        ready = self._now
        pause = min(_LOOK_AGAIN, ready.wish.resolved.config.survey_interval)
        while True:
            for sighting in await self._sightings():
                if sighting.phase is Phase.RUNNING:
                    return f"on {sighting.host or 'a host without a name'}, as the manager shows it"
            if self._failed_after("running"):
                return "it ran, and is over"
            await asyncio.sleep(pause)

    async def _agent_home(self) -> str:
        ready = self._now
        await self._until("agent home", lambda: ready.kernel.connected)
        line = ready.home.switchboard.lines.get(ready.mark)
        caller = line.caller if line is not None else None
        if line is None or caller is None:
            return "it called"
        return f"called from {caller[0]} ({line.host}) by {caller[1]}"

    async def _kernel_ready(self) -> str:
        ready = self._now
        assert self._starting is not None
        await asyncio.shield(self._starting)
        return "; ".join(ready.kernel.warnings) or f"{ready.wish.kernel_name} listens"

    async def _until(self, step: str, reached: Callable[[], bool]) -> None:
        """Return when so, or when the launch has failed in a later step; raise what fails it in this one."""
        assert self._starting is not None
        while not reached():
            if self._failed_after(step):
                return
            change = self._now.kernel.changes.next()
            either: set[asyncio.Future[Any]] = {change, self._starting}
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                change.cancel()

    def _failed_after(self, step: str) -> bool:
        """Whether the launch failed in a step after this one. If it failed before, that is raised."""
        assert self._starting is not None
        if not self._starting.done() or (error := self._starting.exception()) is None:
            return False
        failed = _STEP_OF.get(error.step, step) if isinstance(error, LaunchFailed) else step
        if STEPS.index(failed) > STEPS.index(step):
            return True
        raise error

    # ---- the kernel

    async def _first_reply(self) -> str:
        assert self._starting is not None
        self._front_end = FrontEnd(self._starting.result())
        info = await self._front_end.info()
        self._language = str(info.get("language_info", {}).get("name", ""))
        if self._language != "python":
            return f"{info.get('implementation')} {info.get('implementation_version')}".strip()
        ran = await self._front_end.run(_WHERE)
        if not ran.text.startswith("Python "):
            raise NotAsExpected(
                f"a cell that prints came back with {ran.text!r} and {ran.reply.get('status')}"
            )
        return ran.text.strip()

    async def _interrupt(self) -> str:
        front_end = self._python_only()
        ready = self._now

        async def interrupt() -> None:
            if ready.spec.interrupt_mode == "message":
                front_end.ask_to_interrupt()
            else:
                await ready.kernel.signal(signal.SIGINT)

        ran = await front_end.run(_SLEEP, printed=interrupt)
        if ran.reply.get("ename") != "KeyboardInterrupt":
            raise NotAsExpected(f"a cell that sleeps ended with {ran.reply.get('ename') or ran.reply}")
        return f"a cell that slept has ended with KeyboardInterrupt (by {ready.spec.interrupt_mode})"

    async def _restart(self) -> str:
        ready, before = self._now, self._now.kernel.standing
        assert self._front_end is not None
        python = self._language == "python"
        if python:
            await self._front_end.run(_SET)
        self._front_end.close()
        await ready.kernel.signal(signal.SIGKILL)
        await ready.kernel.exited()
        connection = await ready.kernel.start(ready.wish)
        after = ready.kernel.standing
        if (after.job_id, after.launch) != (before.job_id, before.launch):
            raise NotAsExpected(
                f"it was to be started again in job {before.job_id}, and is in {after.job_id}"
            )
        self._front_end = FrontEnd(connection)
        await self._front_end.info()
        if python and (ran := await self._front_end.run(_GET)).text.strip() != "False":
            raise NotAsExpected(
                f"the kernel was to be a new one; asked for an old variable it said {ran.text!r}"
            )
        return f"a new kernel in the same job{', without the old variables' if python else ''}"

    def _python_only(self) -> FrontEnd:
        if self._language != "python" or self._front_end is None:
            raise Skipped(f"no cell is known that sleeps in {self._language or 'this language'}")
        return self._front_end

    # ---- the end

    async def _stop(self) -> str:
        ready, starting = self._now, self._starting
        assert starting is not None
        if self._front_end is not None:
            self._front_end.close()
        starting.cancel()
        await asyncio.wait({starting})
        if not starting.cancelled():
            starting.exception()  # the step that it failed has told it
        await ready.kernel.end()
        entry = ready.roster.get(ready.kernel.kernel_id, ready.mark.launch)
        return "the job is over" if entry is None or entry.is_gone else "the job was asked to end"

    async def _nothing_left(self) -> str:
        ready = self._now
        pause = min(_LOOK_AGAIN, ready.wish.resolved.config.survey_interval)
        while True:
            jobs = [one for one in await self._sightings() if one.phase is not Phase.ENDED]
            entries = [entry for entry in ready.roster.entries if not entry.is_gone]
            if not jobs and not entries:
                return "the manager shows no job of this home that is not over"
            await asyncio.sleep(pause)

    async def _sightings(self) -> Sequence[Sighting]:
        return (await self._now.roster.backend.survey()).sightings

    @property
    def _now(self) -> Ready:
        assert self._ready is not None, "the first step"
        return self._ready


def _ipykernel(python: str) -> KernelSpec:
    return KernelSpec(argv=[python, *_IPYKERNEL], display_name="Python 3", language="python")
