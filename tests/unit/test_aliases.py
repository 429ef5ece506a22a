"""Stock managers have class-level aliases; an override that leaves the alias alone has no effect."""

from __future__ import annotations

import pytest

from elsewhere.gateway.kernels import GatewayKernelManager
from elsewhere.gateway.mapping import GatewayMappingKernelManager


def names(cls: type) -> list[tuple[str, str]]:
    """The pairs of names that are one method of the stock class that this one descends from."""
    stock = next(base for base in cls.__mro__ if not base.__module__.startswith("elsewhere."))
    return [
        (name, public)
        for name in dir(stock)
        for public in (name.removeprefix("_async_"), name.removeprefix("_async"))
        if name.startswith("_async_") and getattr(stock, public, None) is getattr(stock, name)
    ]


@pytest.mark.parametrize("cls", [GatewayKernelManager, GatewayMappingKernelManager])
def test_both_names_are_the_same_method(cls: type) -> None:
    found = names(cls)
    assert len(found) >= 4
    for name, public in found:
        assert getattr(cls, name) is getattr(cls, public), (name, public)
