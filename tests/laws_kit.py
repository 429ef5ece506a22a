"""The embedded manager as a subject of the laws, with all that is known of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from elsewhere.backend import Mark, Phase
from elsewhere.backends.local import LocalBackend, LocalConfig
from elsewhere.testing.subject import Subject


def local_subject(root: Path, backend: type[LocalBackend] = LocalBackend, patience: float = 30.0) -> Subject:
    """Return the subject whose jobs are in ``root / "jobs"``."""
    jobs = root / "jobs"

    @asynccontextmanager
    async def down() -> AsyncIterator[None]:
        """What this manager knows is a directory."""
        away = jobs.rename(root / "away")
        try:
            yield
        finally:
            away.rename(jobs)

    return Subject(
        backend,
        {"directory": jobs},
        patience=patience,
        down=down,
        impossible={"python": "/no/such/interpreter"},
    )


async def end_all(jobs: Path) -> None:
    """End the jobs of all homes in that directory, reap and remove them, by a backend that is not broken."""
    marks = [Mark.parse(path.name) for path in jobs.glob("elsewhere-*")]
    for home_id in sorted({mark.home_id for mark in marks if mark is not None}):
        backend = LocalBackend(home_id, LocalConfig(directory=jobs))
        while sightings := (await backend.survey()).sightings:
            for sighting in sightings:
                await backend.cancel(sighting.job_id, grace=0)
                if sighting.phase is Phase.ENDED:
                    await backend.discard(sighting.job_id)
            await asyncio.sleep(0.01)
        await backend.close()
