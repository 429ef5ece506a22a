"""Fixtures for the tests that run real kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from site_kit import Site, new_site


@pytest.fixture
def site() -> Iterator[Site]:
    """A site of one's own, at whose end a witness finds nothing left."""
    with new_site() as site:
        yield site
