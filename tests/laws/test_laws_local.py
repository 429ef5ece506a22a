"""The laws on the embedded manager."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from elsewhere.backends.local import LocalBackend
from elsewhere.testing.laws import BackendLaws
from elsewhere.testing.subject import Subject


class TestLocal(BackendLaws):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Subject:
        jobs = tmp_path / "jobs"

        @asynccontextmanager
        async def down() -> AsyncIterator[None]:
            """What this manager knows is a directory."""
            away = jobs.rename(tmp_path / "away")
            yield
            away.rename(jobs)

        return Subject(
            LocalBackend, {"directory": jobs}, down=down, impossible={"python": "/no/such/interpreter"}
        )
