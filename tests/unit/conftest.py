"""Fixtures that the tests of agent and switchboard share."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from agent_kit import Home, open_home


@pytest.fixture
def short() -> Iterator[Path]:
    """A private directory whose path is short enough for unix sockets, and empty at the end."""
    with tempfile.TemporaryDirectory(prefix="ew") as directory:
        yield Path(directory)


@pytest.fixture
async def home(short: Path) -> AsyncIterator[Home]:
    """A home whose switchboard listens."""
    async with open_home(short) as home:
        yield home
