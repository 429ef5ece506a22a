"""What must survive a restart of the home, and where it is written.

A process alone keeps memory only; a gateway has a ledger. Everything is written *before* it is done:
a launch before its submit, the use of a token before its agent is answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .backend import Mark


@dataclass(frozen=True)
class KernelRecord:
    """One kernel that is wanted. ``settings`` are the resolved cluster and launch settings as written.

    Of token and secret only hashes are kept; ``key`` signs the kernel's messages. ``start`` numbers the
    kernel processes of the launch. ``asked`` is the keyword arguments of the start (env, cwd).
    """

    kernel_id: str
    kernel_name: str
    owner: str
    launch: int
    start: int
    stanza: Mapping[str, object]
    asked: Mapping[str, object] = field(repr=False)
    key: str = field(repr=False)
    signature_scheme: str
    token_hash: str
    secret_hash: str = ""


class Records(Protocol):
    """Where a home writes. Called on the home's loop; a failure to write fails what was to be done."""

    async def launching(self, record: KernelRecord) -> None:
        """This launch is about to be submitted; it replaces earlier launches of the kernel."""

    async def starting(self, kernel_id: str, start: int, asked: Mapping[str, object]) -> None:
        """The ``start``-th kernel process of its launch is about to be ordered."""

    async def token_used(self, mark: Mark, secret_hash: str) -> None:
        """The token of this launch was used by the holder of this secret."""

    async def ended(self, kernel_id: str) -> None:
        """The kernel is wanted no longer. May be called more than once."""

    async def aclose(self) -> None:
        """Home is closed, and nothing more will be written."""


class NoRecords:
    """The records of a process alone: none."""

    async def launching(self, record: KernelRecord) -> None:
        """Forget it."""

    async def starting(self, kernel_id: str, start: int, asked: Mapping[str, object]) -> None:
        """Forget it."""

    async def token_used(self, mark: Mark, secret_hash: str) -> None:
        """The line itself remembers."""

    async def ended(self, kernel_id: str) -> None:
        """Forget it."""

    async def aclose(self) -> None:
        """There is nothing to let go of."""
