"""What the author of a backend reads: the interface, and the few types that cross it.

A backend adapts one resource manager. It is pure where it can be (``render``), and otherwise asks
the manager three things: submit, survey, cancel. It keeps no memory of its own about jobs: what is
out there is what the manager says.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, NewType, ParamSpec, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

JobId = NewType("JobId", str)
"""The manager's own name for a job. Never the identity of a kernel: that is the mark."""


class Model(BaseModel):
    """Settings that a person writes: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ClusterConfig(Model):
    """How to reach and ask one manager. Subclass it for a backend's own settings."""

    survey_interval: float = Field(
        3.0, gt=0, description="Seconds between two surveys, where the manager cannot push."
    )
    starts_at_once: int | None = Field(
        None,
        ge=1,
        description="Kernels of one home that may be starting at the same time, the others wait for their "
        "turn; default: no limit.",
    )


class Options(Model):
    """What may be asked for one launch. Subclass it for a backend's own options."""

    python: str | None = Field(
        None,
        description="Interpreter that runs the agent in the job (3.8 or newer); "
        "default: that of the kernel's argv, else python3.",
    )


P = ParamSpec("P")
T = TypeVar("T")
OptionsT = TypeVar("OptionsT", bound=Options)
RequestT = TypeVar("RequestT")

_MARK = re.compile(r"elsewhere-([0-9a-z]+)-(\d+)-([A-Za-z0-9_.-]+)\Z", re.ASCII)


@dataclass(frozen=True)
class Mark:
    """The identity that is stamped on a job: whose it is, which kernel, which launch of it."""

    home_id: str
    kernel_id: str
    launch: int

    def __post_init__(self) -> None:
        if len(self.kernel_id) > 64 or not _MARK.match(str(self)):
            raise ValueError(
                f"cannot mark a job with home {self.home_id!r}, kernel {self.kernel_id!r}: a kernel id "
                "has at most 64 letters, digits, '-', '_' or '.'"
            )

    def __str__(self) -> str:
        return f"elsewhere-{self.home_id}-{self.launch}-{self.kernel_id}"

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """Return the mark that was written as ``text``, or None if it is not one."""
        found = _MARK.match(text)
        if not found or len(found[3]) > 64:
            return None
        return cls(home_id=found[1], launch=int(found[2]), kernel_id=found[3])


@dataclass(frozen=True)
class Order:
    """What the agent is to start: it travels in the parcel, never in a request.

    ``argv`` holds Jupyter's placeholders unfilled: the agent fills them with paths in the job.
    ``cwd`` is used where it exists in the job. ``transport`` is how the kernel is asked to listen.
    ``files`` are the kernelspec's own (name → content), sent when ``{resource_dir}`` is used.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    transport: str = "tcp"
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    placeholders: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Launch(Generic[OptionsT]):
    """A pure description of what to start. ``python`` is the interpreter for the agent."""

    mark: Mark
    kernel_name: str
    username: str
    python: str
    order: Order
    options: OptionsT


@dataclass(frozen=True)
class Parcel:
    """The agent and the secrets that go with a job, as one file that Python can run.

    Whoever holds it can speak for the job: hand it over as a file of mode 0600, on stdin, or in the
    manager's own secret; never in argv, a label, a name, or anything that is printed.
    """

    content: bytes = field(repr=False)

    @staticmethod
    def run_file(python: str, path: str) -> list[str]:
        """Return the argv that runs a parcel stored at ``path`` in the job; it deletes that file.

        The options are those of -I that Python 2 knows too: it shall be able to say that it is too old.
        """
        return [python, "-E", "-s", "-S", path]


class Phase(enum.Enum):
    """What a manager says of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class Sighting:
    """One job of this home, as the manager tells it at one moment.

    ``reason`` is in the manager's own words ("Resources", "OOMKilled"); ``exit_code`` is negative
    for a signal, and None where the manager does not know it.
    """

    kernel_id: str
    launch: int
    job_id: JobId
    phase: Phase
    host: str | None = None
    reason: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class Observation:
    """Sightings, and whether they are all jobs of this home or only those that changed."""

    sightings: tuple[Sighting, ...]
    complete: bool


class Backend(ABC, Generic[OptionsT, RequestT]):
    """One resource manager, shared by all the kernels that it runs.

    Raises only ``Rejected`` and ``Unreachable``. All methods are called on one event loop, several
    at once, and must not block it.
    """

    Config: ClassVar[type[ClusterConfig]] = ClusterConfig
    Options: ClassVar[type[Options]] = Options

    def __init__(self, home_id: str, config: ClusterConfig) -> None:
        self.home_id = home_id
        self.config = config

    @abstractmethod
    def render(self, launch: Launch[OptionsT]) -> RequestT:
        """Return exactly what would be submitted, the mark stamped on it. Pure; holds no secret."""

    @abstractmethod
    async def submit(self, request: RequestT, parcel: Parcel) -> JobId | None:
        """Hand the job over and return at once; None if the first sighting brings the id.

        A cancelled submit leaves nothing, or something that the next observation shows.
        """

    @abstractmethod
    async def survey(self) -> Observation:
        """Return all jobs of this home, in one question. Never a guess: no answer is Unreachable."""

    @abstractmethod
    async def cancel(self, job_id: JobId, *, grace: float) -> None:
        """Ask for the job's end, by force after ``grace`` seconds. Does not wait for it.

        May be called more than once for the same job; an unknown job is no error.
        """

    async def watch(self) -> AsyncGenerator[Observation]:
        """Yield observations for ever. Override where the manager can push.

        May raise ``Unreachable``; it is then called anew, after a pause.
        """
        while True:
            yield await self.survey()
            await asyncio.sleep(self.config.survey_interval)

    async def close(self) -> None:
        """Let go of connections and files. Jobs go on. May be called more than once."""


@runtime_checkable
class Signals(Protocol):
    """A backend that can send a signal to a job's processes where no agent answers."""

    async def signal(self, job_id: JobId, signum: int) -> None:
        """Send one signal; a job that is over is no error."""


@runtime_checkable
class Logs(Protocol):
    """A backend that keeps what a job printed."""

    async def tail(self, job_id: JobId, lines: int) -> Sequence[str]:
        """Return the last lines that the job printed, oldest first; none for an unknown job."""

    async def discard(self, job_id: JobId) -> None:
        """Remove what an ended job left behind. May be called more than once."""


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what blocks, such as a manager's own library, in a thread.

    A thread cannot be stopped: when cancelled, this waits until the call is over. So what a cancelled
    submit does all the same is done before anybody asks for the next survey.
    """
    call = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.wait({call})
        with contextlib.suppress(Exception):
            call.result()  # nobody waits for it any more
        raise
