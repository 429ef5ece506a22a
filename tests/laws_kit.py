"""The embedded manager as a subject of the laws, with all that is known of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from elsewhere.backends.local import LocalBackend
from elsewhere.testing.subject import Subject


def local_subject(root: Path, backend: type[LocalBackend] = LocalBackend, patience: float = 30.0) -> Subject:
    """Return the subject whose jobs are in ``root / "jobs"``."""
    jobs = root / "jobs"

    @asynccontextmanager
    async def down() -> AsyncIterator[None]:
        """What this manager knows is a directory."""
        away = jobs.rename(root / "away")
        yield
        away.rename(jobs)

    return Subject(
        backend,
        {"directory": jobs},
        patience=patience,
        down=down,
        impossible={"python": "/no/such/interpreter"},
    )
