"""What there is room for in one process."""

from __future__ import annotations

import resource

import pytest

from elsewhere import limits
from elsewhere.limits import Capacity, capacity, raise_open_files


def test_it_is_told_in_kernels() -> None:
    assert str(Capacity(20_000)) == "room for about 4,950 kernels in one gateway (20,000 open files)"
    assert str(Capacity(1024)).endswith("(1,024 open files); raise the hard limit, ulimit -Hn, for more")
    assert Capacity(100).kernels == 0


def test_the_limit_is_raised_as_far_as_it_may_be() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        room = raise_open_files()
        now, still = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert (now, still) == (limits.most_open_files(), hard)
        assert room == capacity() == Capacity(now)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_limit_is_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def unlimited(what: int) -> tuple[int, int]:
        return 1024, resource.RLIM_INFINITY

    monkeypatch.setattr(resource, "getrlimit", unlimited)
    assert capacity() == Capacity(1 << 20)
