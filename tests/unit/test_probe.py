"""What a probe finds out about its own parcel."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from elsewhere.testing.probe import open_to_others


@pytest.fixture
def parcel() -> Iterator[Path]:
    """A file below directories that everybody may pass through."""
    with tempfile.TemporaryDirectory(prefix="ew", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        path = Path(directory, "parcel.pyz")
        path.touch()
        yield path


@pytest.mark.parametrize(
    ("mode", "above", "is_open"),
    [
        (0o600, 0o755, False),
        (0o644, 0o755, True),
        (0o640, 0o755, True),
        (0o644, 0o700, False),
        (0o611, 0o755, False),
    ],
)
def test_others_can_read_what_they_can_reach(parcel: Path, mode: int, above: int, is_open: bool) -> None:
    parcel.chmod(mode)
    parcel.parent.chmod(above)
    assert open_to_others(str(parcel)) is is_open
