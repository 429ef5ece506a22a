"""The laws on the embedded manager."""

from __future__ import annotations

from pathlib import Path

import pytest

from elsewhere.testing.laws import BackendLaws
from elsewhere.testing.subject import Subject
from laws_kit import local_subject


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return local_subject(tmp_path)


class TestLocal(BackendLaws):
    """All of them."""
