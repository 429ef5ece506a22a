"""How many kernels one home has room for: what bounds it is the number of files a process may open."""

from __future__ import annotations

import resource
from dataclasses import dataclass

FILES_OF_ITS_OWN = 200
"""Open files of a gateway without kernels, generously: libraries, ledger, listening sockets, requests."""

FILES_A_KERNEL = 4
"""The agent's connection, two front ends, and one that the manager's client may hold."""

MANY = 1000
"""Kernels for which a gateway is meant at least."""


@dataclass(frozen=True)
class Capacity:
    """``files``: how many a process may open, once the limit is raised as far as it may be."""

    files: int

    @property
    def kernels(self) -> int:
        """How many kernels a gateway can hold with that."""
        return max(0, self.files - FILES_OF_ITS_OWN) // FILES_A_KERNEL

    def __str__(self) -> str:
        room = f"room for about {self.kernels:,} kernels in one gateway ({self.files:,} open files)"
        return room if self.kernels >= MANY else f"{room}; raise the hard limit, ulimit -Hn, for more"


def capacity() -> Capacity:
    """Return what there is room for; changes nothing."""
    return Capacity(most_open_files())


def most_open_files() -> int:
    """Return the hard limit of open files; a process may raise its own limit up to it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if hard != resource.RLIM_INFINITY else 1 << 20
