"""What there is room for in one process."""

from __future__ import annotations

import resource

import pytest

from elsewhere import limits
from elsewhere.limits import Capacity, capacity


def test_it_is_told_in_kernels() -> None:
    assert str(Capacity(20_000)) == "room for about 4,950 kernels in one gateway (20,000 open files)"
    assert str(Capacity(1024)).endswith("(1,024 open files); raise the hard limit, ulimit -Hn, for more")
    assert Capacity(100).kernels == 0


def test_it_is_that_of_the_hard_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert capacity() == Capacity(limits.most_open_files())
    assert limits.most_open_files() == hard or hard == resource.RLIM_INFINITY


def test_no_limit_is_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def unlimited(what: int) -> tuple[int, int]:
        return 1024, resource.RLIM_INFINITY

    monkeypatch.setattr(resource, "getrlimit", unlimited)
    assert capacity() == Capacity(1 << 20)
