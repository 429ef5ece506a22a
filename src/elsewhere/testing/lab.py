"""Where the laws of a backend are tried: homes on one manager, jobs that are probes, and who sees them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from elsewhere.backend import Backend, JobId, Launch, Logs, Mark, Observation, Order, Parcel, Phase, Sighting
from elsewhere.errors import Unreachable
from elsewhere.testing.subject import Subject
from elsewhere.testing.witness import LawBroken, Probe, Witness

POLL = 0.05
"""Seconds between two looks at the manager where nothing tells of a change."""

AnyBackend = Backend[Any, Any]


class Submitted(NamedTuple):
    """A job that was submitted; ``job_id`` is None if the manager did not say it yet."""

    mark: Mark
    job_id: JobId | None
    parcel: Parcel


class Lab:
    """One manager under test. ``backend`` is ours; ``another`` makes more of them."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.home_id = secrets.token_hex(5)
        self.canary = f"canary{secrets.token_hex(12)}"
        self.witness = Witness(subject.switchboard, subject.patience)
        self._backends: list[AnyBackend] = []
        self.backend = self.another()

    def another(self, home_id: str | None = None, **config: Any) -> AnyBackend:
        """Return a new object on the same manager, as a new process of that home would have it."""
        settings = self.subject.backend.Config.model_validate({**self.subject.config, **config})
        self._backends.append(self.subject.backend(home_id or self.home_id, settings))
        return self._backends[-1]

    def launch(
        self,
        kernel_id: str = "k",
        number: int = 1,
        *,
        home_id: str | None = None,
        kernel_name: str = "python3",
        username: str = "user",
        **options: Any,
    ) -> Launch[Any]:
        """Return a launch. Its order is that of a kernel with secrets, which no request may hold."""
        resolved = self.subject.resolved(**options).options
        return Launch(
            Mark(home_id or self.home_id, kernel_id, number),
            kernel_name,
            username,
            resolved.python or self.subject.python,
            Order(
                ("kernel", self.canary), env={"TOKEN": self.canary}, files={"secret": self.canary.encode()}
            ),
            resolved,
        )

    def parcel(self, launch: Launch[Any], *, stubborn: bool = False) -> Parcel:
        """Return a parcel that runs a probe; a stubborn one hears no SIGTERM, and has a child."""
        return self.witness.parcel(launch.mark, stubborn=stubborn, canary=self.canary)

    async def submit(
        self,
        kernel_id: str = "k",
        number: int = 1,
        *,
        backend: AnyBackend | None = None,
        stubborn: bool = False,
        **wishes: Any,
    ) -> Submitted:
        """Render and submit a probe."""
        backend = backend or self.backend
        launch = self.launch(kernel_id, number, home_id=backend.home_id, **wishes)
        parcel = self.parcel(launch, stubborn=stubborn)
        return Submitted(launch.mark, await backend.submit(backend.render(launch), parcel), parcel)

    async def running(
        self, kernel_id: str = "k", *, backend: AnyBackend | None = None, **wishes: Any
    ) -> tuple[Submitted, JobId, Probe]:
        """Submit a probe; wait until it has called and is seen to run."""
        submitted = await self.submit(kernel_id, backend=backend, **wishes)
        probe = await self.witness.probe(submitted.mark)
        seen = await self.seen(submitted.mark, Phase.RUNNING, backend)
        return submitted, seen.job_id, probe

    async def sightings(self, backend: AnyBackend | None = None) -> tuple[Sighting, ...]:
        """Return all that one survey shows. Raises LawBroken if it says that this is not all."""
        observation = await (backend or self.backend).survey()
        if not observation.complete:
            raise LawBroken("survey returns all jobs of the home: `complete` must be True")
        return observation.sightings

    async def look(self, mark: Mark, backend: AnyBackend | None = None) -> Sighting | None:
        """Return what one survey shows of a launch; None if nothing."""
        found = [one for one in await self.sightings(backend) if is_of(one, mark)]
        if len(found) > 1:
            jobs = ", ".join(one.job_id for one in found)
            raise LawBroken(
                f"one job was submitted as {mark}, and survey shows {len(found)} of that kernel and launch "
                f"({jobs}): does it show jobs of other homes?"
            )
        return found[0] if found else None

    async def seen(self, mark: Mark, phase: Phase, backend: AnyBackend | None = None) -> Sighting:
        """Wait until a launch is seen in this phase. Raises LawBroken, also when it has ended instead."""
        last: Sighting | None = None

        async def there() -> bool:
            nonlocal last
            last = await self.look(mark, backend)
            if last is not None and last.phase is Phase.ENDED and phase is not Phase.ENDED:
                raise LawBroken(f"the job {mark} was to be {phase.value}, but has ended: {last}")
            return last is not None and last.phase is phase

        await self.until(there, lambda: f"{mark} is seen {phase.value} (seen last: {last})")
        assert last is not None
        return last

    async def first_seen(self, mark: Mark) -> Sighting:
        """Wait until a launch is seen at all."""
        last: Sighting | None = None

        async def there() -> bool:
            nonlocal last
            last = await self.look(mark)
            return last is not None

        await self.until(there, lambda: f"{mark} is seen")
        assert last is not None
        return last

    async def over(self, mark: Mark, backend: AnyBackend | None = None) -> None:
        """Wait until no process of a launch lives, and no survey shows it as live. Raises LawBroken."""
        await self.witness.until(lambda: not self.witness.of(mark, alive=True), f"{mark} is really over")

        async def ended() -> bool:
            sighting = await self.look(mark, backend)
            return sighting is None or sighting.phase is Phase.ENDED

        await self.until(ended, lambda: f"{mark} is seen no longer, or as ended")

    async def until(self, holds: Callable[[], Awaitable[bool]], what: Callable[[], str]) -> None:
        """Look until it holds. Raises LawBroken once the subject's patience is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.subject.patience
        while not await holds():
            if loop.time() > deadline:
                raise LawBroken(f"not within {self.subject.patience:g} s: {what()}")
            await asyncio.sleep(POLL)

    async def tidy(self) -> None:
        """End all jobs of all homes of this lab. Raises LawBroken if one does not end."""
        for home_id in sorted({backend.home_id for backend in self._backends}):
            await self._tidy(self.another(home_id))
        await self.witness.until(
            lambda: not any(one.alive for one in self.witness.probes), "all jobs of the law are over"
        )

    async def _tidy(self, backend: AnyBackend) -> None:
        for sighting in await self.sightings(backend):
            await backend.cancel(sighting.job_id, grace=0)

        async def all_ended() -> bool:
            return all(one.phase is Phase.ENDED for one in await self.sightings(backend))

        await self.until(all_ended, lambda: "all jobs of the law are seen as ended")
        if isinstance(backend, Logs):
            for sighting in await self.sightings(backend):
                await backend.discard(sighting.job_id)

    async def aclose(self) -> None:
        """Let go of everything; what still runs ends with the witness."""
        await self.witness.aclose()
        for backend in self._backends:
            await backend.close()


class LosesAnAnswer(Backend[Any, Any]):
    """A backend whose every submit is done, and whose answer nobody hears."""

    def __init__(self, inner: AnyBackend) -> None:
        super().__init__(inner.home_id, inner.config)
        self._inner = inner

    def render(self, launch: Launch[Any]) -> Any:
        return self._inner.render(launch)

    async def submit(self, request: Any, parcel: Parcel) -> JobId | None:
        await self._inner.submit(request, parcel)
        raise Unreachable("the answer was lost")

    async def survey(self) -> Observation:
        return await self._inner.survey()

    async def cancel(self, job_id: JobId, *, grace: float) -> None:
        await self._inner.cancel(job_id, grace=grace)


def is_of(sighting: Sighting, mark: Mark) -> bool:
    """Return whether a sighting is of this launch of its home."""
    return (sighting.kernel_id, sighting.launch) == (mark.kernel_id, mark.launch)


def marks_of(home_id: str, sightings: Iterable[Sighting]) -> list[Mark]:
    """Return the marks of what was seen."""
    return [Mark(home_id, one.kernel_id, one.launch) for one in sightings]


@asynccontextmanager
async def open_lab(subject: Subject) -> AsyncIterator[Lab]:
    """Lend a lab, and leave nothing of it on the manager, whatever happened in it."""
    lab = Lab(subject)
    await lab.witness.open()
    kept = False
    try:
        yield lab
        kept = True
    finally:
        try:
            await lab.tidy()
        except NotImplementedError:
            pass  # the author has not come to that: probes end when the witness hangs up
        except Exception as error:
            if kept:  # else the law's own failure says more
                raise LawBroken(f"while tidying up after the law: {error!r}") from error
        finally:
            await lab.aclose()
