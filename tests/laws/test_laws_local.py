"""The laws on the embedded manager."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from elsewhere.testing.laws import BackendLaws
from elsewhere.testing.subject import Subject
from laws_kit import local_subject
from site_kit import zombies


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    yield local_subject(tmp_path)
    assert zombies() == []


class TestLocal(BackendLaws):
    """All of them."""
