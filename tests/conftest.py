"""Fixtures for the tests that run real kernels, real agents, or both."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent_kit import Home, open_home
from site_kit import Site, new_site

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A run in the background of a script; what the tests start must hear a Ctrl-C all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def site() -> Iterator[Site]:
    """A site of one's own, at whose end a witness finds nothing left."""
    with new_site() as site:
        yield site


@pytest.fixture
def short() -> Iterator[Path]:
    """A private directory whose path is short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="ew") as directory:
        yield Path(directory)


@pytest.fixture
async def home(short: Path) -> AsyncIterator[Home]:
    """A home whose switchboard listens."""
    async with open_home(short) as home:
        yield home
