"""The backend of the crowd's managers: as many processes as there are sockets, taken in turn."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import zipfile
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from elsewhere.agent.boot import MEMBER
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
from elsewhere.errors import Unreachable


class CrowdConfig(ClusterConfig):
    """Where the managers are."""

    sockets: list[str] = Field(description="Unix sockets of the managers.")


@dataclass(frozen=True)
class CrowdRequest:
    """What is submitted: the mark alone."""

    mark: Mark


class Manager:
    """One connection to one manager; who asks waits for those before."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._turn = asyncio.Lock()
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, **asked: object) -> Any:
        """Return the answer. Raises Unreachable."""
        async with self._turn:
            try:
                if self._ends is None:
                    self._ends = await asyncio.open_unix_connection(self._path, limit=1 << 24)
                reader, writer = self._ends
                writer.write(json.dumps(asked).encode() + b"\n")
                return json.loads(await reader.readline())
            except (OSError, ValueError) as error:
                self._ends = None
                raise Unreachable(str(error)) from error

    def close(self) -> None:
        """Hang up."""
        if self._ends is not None:
            self._ends[1].close()


class CrowdBackend(Backend[Options, CrowdRequest]):
    """The jobs of all managers are one set; one survey asks each once."""

    Config = CrowdConfig

    def __init__(self, home_id: str, config: ClusterConfig) -> None:
        super().__init__(home_id, config)
        assert isinstance(config, CrowdConfig)
        self.managers = [Manager(path) for path in config.sockets]
        self._next = itertools.cycle(self.managers)
        self._where: dict[JobId, Manager] = {}

    def render(self, launch: Launch[Options]) -> CrowdRequest:
        """Return the mark: the rest is in the parcel."""
        return CrowdRequest(launch.mark)

    async def submit(self, request: CrowdRequest, parcel: Parcel) -> JobId | None:
        """Unpack what the agent is to know and hand that over, without the agent's program."""
        with zipfile.ZipFile(io.BytesIO(parcel.content)) as packed:
            secrets = json.loads(packed.read(MEMBER))
        await next(self._next).ask(do="submit", parcel=secrets, held=False)
        return None

    async def survey(self) -> Observation:
        """Ask every manager for all jobs."""
        sightings = []
        for manager in self.managers:
            for kernel_id, launch, job_id in (await manager.ask(do="survey", home=self.home_id))["jobs"]:
                job = JobId(f"{id(manager)}/{job_id}")
                self._where[job] = manager
                sightings.append(Sighting(kernel_id, launch, job, Phase.RUNNING, "crowd"))
        return Observation(tuple(sightings), complete=True)

    async def cancel(self, job_id: JobId, *, grace: float) -> None:
        """End it at once."""
        if job_id in self._where:
            await self._where.pop(job_id).ask(do="cancel", id=job_id.partition("/")[2])

    async def close(self) -> None:
        """Hang up."""
        for manager in self.managers:
            manager.close()
