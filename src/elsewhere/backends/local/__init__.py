"""An embedded manager that needs nothing installed: each job is a detached process of this machine.

A job outlives the process that submitted it and knows its home only by its agent's connection, as
on a cluster. It is found again by its directory, in any process of the same user and machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import logging
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from pydantic import Field

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
)
from elsewhere.backends.local.ends import Ends
from elsewhere.backends.local.jobs import Jobs, LocalRequest
from elsewhere.backends.local.processes import JOB_VARIABLE
from elsewhere.errors import BackendError, Rejected, Unreachable

__all__ = ["LocalBackend", "LocalConfig", "LocalOptions", "LocalRequest"]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)

_THREADS = 4
_LOOK_AGAIN = 0.05
_NEVER_PASSED = frozenset({JOB_VARIABLE, "JPY_PARENT_PID"})

LOGIN_ENVIRONMENT = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "XDG_*",
    "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_*", "MAMBA_*", "PYENV_*", "NIX_*", "LOCALE_ARCHIVE",
    "MODULEPATH", "LOADEDMODULES", "JAVA_HOME", "R_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "KRB5CCNAME",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
"""What a person's login would set: enough for a kernel to find its files, and none of a server's secrets."""


class LocalConfig(ClusterConfig):
    """Where jobs live on this machine, and what they get from it."""

    survey_interval: float = Field(1.0, gt=0, description="Seconds between two surveys.")
    starts_at_once: int | None = Field(
        default_factory=lambda: 2 * (os.cpu_count() or 1),
        ge=1,
        description="Kernels of one home that may be starting at the same time, the others wait for their "
        "turn: a start takes a CPU of this machine; default: twice its CPUs.",
    )
    directory: Path | None = Field(
        None,
        description="Private directory (mode 0700) of the jobs, on a disk of this machine; "
        "default: $XDG_RUNTIME_DIR/elsewhere/local, else elsewhere-<uid>/local in /tmp.",
    )
    log_limit: int = Field(
        10 * 1024 * 1024,
        gt=0,
        description="Bytes after which a job's log is rotated; one older part is kept.",
    )
    inherit_env: tuple[str, ...] = Field(
        LOGIN_ENVIRONMENT,
        description="Names or patterns (`LC_*`) of the manager's own environment that a job gets.",
    )


class LocalOptions(Options):
    """What may be asked for one launch on this machine."""

    nice: int | None = Field(
        None, ge=0, le=19, description="How far the job stands back for others: 0 (not at all) to 19."
    )


@dataclass(frozen=True)
class _Grace:
    """A job that was asked to end, and what ends it by force."""

    deadline: float
    task: asyncio.Task[None]


class LocalBackend(Backend[LocalOptions, LocalRequest]):
    """Runs each job as a detached process; whatever is known of it stands in its directory."""

    Config = LocalConfig
    Options = LocalOptions

    def __init__(self, home_id: str, config: LocalConfig) -> None:
        super().__init__(home_id, config)
        # Taken once: what a job gets does not depend on what the host process does to its own later.
        self._environ = {
            name: value
            for name, value in os.environ.items()
            if name not in _NEVER_PASSED and any(fnmatch.fnmatchcase(name, p) for p in config.inherit_env)
        }
        private = _directories(config.directory)
        self.directory = private[-1]
        self._user_home = os.path.expanduser("~")
        self._jobs = Jobs(home_id, self.directory, private, config.log_limit)
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="elsewhere-local")
        self._starting: dict[str, Future[None]] = {}
        self._graces: dict[str, _Grace] = {}

    def render(self, launch: Launch[LocalOptions]) -> LocalRequest:
        """Return what is started: the argv, the names in its environment, and where its files are."""
        directory = self.directory / str(launch.mark)
        return LocalRequest(
            mark=launch.mark,
            argv=tuple(Parcel.run_file(launch.python, str(directory / "parcel.pyz"))),
            nice=launch.options.nice,
            environment=(*sorted(self._environ), JOB_VARIABLE),
            cwd=self._user_home,
            directory=directory,
        )

    async def submit(self, request: LocalRequest, parcel: Parcel) -> JobId:
        """Start the job and return its id, which is its mark.

        Raises ``Rejected`` and leaves nothing if it cannot be started. When cancelled, the job was
        either not started at all, or is, and the next survey shows it.
        """
        job_id = str(request.mark)
        try:
            future = self._executor.submit(self._jobs.start, request, parcel, self._environ)
        except RuntimeError:
            raise Rejected("this local manager is closed; it starts nothing any more") from None
        self._starting[job_id] = future
        future.add_done_callback(lambda _: self._starting.pop(job_id, None))
        started = asyncio.wrap_future(future)
        try:
            await asyncio.shield(started)
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait({started})  # it has begun, and a survey must not overtake it
                started.exception()
            raise
        return JobId(job_id)

    async def survey(self) -> Observation:
        """Return all jobs of this home. On the way: reap, rotate logs, forget what ended an hour ago."""
        return Observation(await self._off_loop(self._jobs.survey), complete=True)

    async def watch(self) -> AsyncGenerator[Observation]:
        """Yield a survey every ``survey_interval``, and at once when a job's main process ends."""
        ends = Ends()
        try:
            while True:
                observation = await self.survey()
                yield observation
                marks = [
                    Mark(self.home_id, sighting.kernel_id, sighting.launch)
                    for sighting in observation.sightings
                    if sighting.phase is Phase.RUNNING
                ]
                ends.follow(await self._off_loop(self._jobs.main_processes, marks))
                await ends.wait(self.config.survey_interval)
        finally:
            ends.close()

    async def cancel(self, job_id: JobId, *, grace: float) -> None:
        """Send SIGTERM to the main process; kill all processes of the job once that is over, or ``grace`` is.

        The earliest deadline counts. With no grace everything is killed before this returns, even
        while the interpreter exits.
        """
        mark = self._mark(job_id)
        if mark is None:
            return
        starting = self._starting.get(job_id)
        if starting is not None:
            started = asyncio.wrap_future(starting)
            await asyncio.wait({started})
            if not started.cancelled():
                started.exception()  # submit raises it, to whom it concerns
        deadline = asyncio.get_running_loop().time() + grace
        if grace <= 0:
            self._forget_grace(job_id)
            await self._off_loop(self._jobs.kill, mark)
        elif job_id not in self._graces and not await self._off_loop(self._jobs.terminate, mark):
            return
        elif job_id not in self._graces or self._graces[job_id].deadline > deadline:
            self._forget_grace(job_id)
            task = asyncio.create_task(self._end(mark, deadline), name=f"grace of {job_id}")
            self._graces[job_id] = _Grace(deadline, task)

    async def signal(self, job_id: JobId, signum: int) -> None:
        """Send one signal to the job's main process; a job that is over is no error."""
        if mark := self._mark(job_id):
            await self._off_loop(self._jobs.signal, mark, signum)

    async def tail(self, job_id: JobId, lines: int) -> Sequence[str]:
        """Return the last lines that the job printed, oldest first; none for an unknown job."""
        mark = self._mark(job_id)
        return await self._off_loop(self._jobs.tail, mark, lines) if mark else ()

    async def discard(self, job_id: JobId) -> None:
        """Remove the directory of a job that is over. One that still runs is left as it is."""
        if mark := self._mark(job_id):
            await self._off_loop(self._jobs.discard, mark)

    async def close(self) -> None:
        """Let go of the threads. Jobs go on, but a grace that still runs is cut short.

        Nobody would end those jobs later.
        """
        for job_id, grace in list(self._graces.items()):
            self._forget_grace(job_id)
            await asyncio.wait({grace.task})
            if mark := self._mark(job_id):
                await self._off_loop(self._jobs.kill, mark)
        self._executor.shutdown(wait=False)

    async def _end(self, mark: Mark, deadline: float) -> None:
        """Wait for the end of the job's main process, though not for ever; kill what is left then."""
        loop = asyncio.get_running_loop()
        try:
            while await self._off_loop(self._jobs.alive, mark):
                left = deadline - loop.time()
                if left <= 0:
                    break
                await asyncio.sleep(min(left, _LOOK_AGAIN))
            await self._off_loop(self._jobs.kill, mark)
        except BackendError as error:
            _log.warning(
                "could not end the job %s, which is asked for again while it is seen: %s", mark, error
            )
        finally:
            grace = self._graces.get(str(mark))
            if grace and grace.task is asyncio.current_task():
                del self._graces[str(mark)]

    def _forget_grace(self, job_id: str) -> None:
        if grace := self._graces.pop(job_id, None):
            grace.task.cancel()

    def _mark(self, job_id: str) -> Mark | None:
        """Return the mark that this id is, None for what cannot be a job of this home."""
        with contextlib.suppress(ValueError):
            mark = Mark.parse(job_id)
            if mark and mark.home_id == self.home_id and str(mark) == job_id:
                return mark
        return None

    async def _off_loop(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do blocking work in a thread; at interpreter exit, when threads take none, here and now."""
        try:
            try:
                future = self._executor.submit(work, *args, **kwargs)
            except RuntimeError:
                return work(*args, **kwargs)
            return await asyncio.wrap_future(future)
        except OSError as error:
            raise Unreachable(f"the jobs in {self.directory} cannot be reached: {error}") from error


def _directories(configured: Path | None) -> tuple[Path, ...]:
    """Return the directories that must be private, the last of which holds the jobs."""
    if configured is not None:
        return (Path(os.path.abspath(configured.expanduser())),)
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and os.path.isdir(runtime) and os.access(runtime, os.W_OK | os.X_OK):
        parent = Path(runtime, "elsewhere")
    else:
        parent = Path("/tmp", f"elsewhere-{os.geteuid()}")  # noqa: S108 - refused unless private
    return (parent, parent / "local")
