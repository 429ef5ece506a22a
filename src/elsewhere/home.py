"""A home: who jobs belong to. It owns the switchboard, a roster for each cluster, and its kernels."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from weakref import WeakSet

from .agent.pipe import Pipe
from .backend import Backend, Mark
from .errors import ElsewhereError
from .identity import Identity
from .line import Admission, Line
from .parcel import Home as Address
from .records import NoRecords, Records
from .roster import Roster
from .rundir import RunDirectory
from .settings import Resolved
from .settings import Switchboard as SwitchboardSettings
from .switchboard import Switchboard
from .turns import Turns

ORPHAN_GRACE_ALONE = 60.0
"""Seconds that a job outlives a notebook process which has no ledger to find it again by."""

LAUNCHES_AT_ONCE = 4
"""Launches that are prepared at one time; how many are submitted or wait is limited elsewhere."""

CLOSING_TURNS = 10
"""Turns of the loop in which connections that were just accepted or aborted come to their end."""


class Home:
    """Belongs to one event loop. ``open`` before anything else, ``aclose`` at the end.

    ``records``: what survives this process; without, nothing does. ``publishes``: whether kernels have
    local subscribers from their start; else from when one connects. ``orphan_grace``: seconds that a job
    outlives us. ``cancel_orphans_after``: seconds until a job of ours that no record knows is
    cancelled; None leaves it alone.
    """

    def __init__(
        self,
        settings: SwitchboardSettings,
        rundir: RunDirectory,
        identity: Identity,
        *,
        records: Records | None = None,
        orphan_grace: float = ORPHAN_GRACE_ALONE,
        cancel_orphans_after: float | None = None,
        publishes: bool = True,
    ) -> None:
        self.identity = identity
        self.rundir = rundir
        self.records = records or NoRecords()
        self.orphan_grace = orphan_grace
        self.publishes = publishes
        self.leaves_kernels = False
        """Whether it is closing and its kernels go on: no record of them may be struck out any more."""
        self.switchboard = Switchboard(
            identity.home_id, identity.server_context(rundir.path), consume=self.records.token_used
        )
        self.switchboard.knows_all = records is None
        self._cancel_orphans_after = cancel_orphans_after
        self.address = Address(identity.name, identity.authority, ())
        self.port = settings.port
        self._settings = settings
        self.pipes: WeakSet[Pipe] = WeakSet()
        """Of local clients, those too that are over and wait until a slow client has read the last of it."""
        self.turns = asyncio.Semaphore(LAUNCHES_AT_ONCE)
        self._rosters: dict[str, Roster[Any, Any]] = {}
        self._starts: dict[str, Turns] = {}

    @property
    def home_id(self) -> str:
        """The id that is stamped on our jobs."""
        return self.identity.home_id

    async def open(self) -> None:
        """Listen for agents. Raises ElsewhereError when the address cannot be had."""
        bind, port = self._settings.bind, self._settings.port
        try:
            self.port = bound = await self.switchboard.listen(bind, port)
        except OSError as error:
            raise ElsewhereError(
                f"cannot listen for agents on {bind}:{port}: {error.strerror or error}; "
                "set [switchboard] bind and port in elsewhere.toml"
            ) from error
        addresses = tuple(_dialled(host, port) for host, port in self._settings.addresses(bound))
        self.address = Address(self.identity.name, self.identity.authority, addresses)

    def expect(self, mark: Mark, admission: Admission) -> Line:
        """Let the agent of this launch call, and return its line."""
        return self.switchboard.expect(mark, admission, publishes=self.publishes)

    def knows_all(self) -> None:
        """Every launch of an earlier life is expected again: who calls and is none of them is refused."""
        self.switchboard.knows_all = True

    def roster(self, resolved: Resolved) -> Roster[Any, Any]:
        """Return the roster of this cluster, begun at its first use."""
        roster = self._rosters.get(resolved.cluster)
        if roster is None:
            backend: Backend[Any, Any] = resolved.backend(self.home_id, resolved.config)
            roster = Roster(
                backend,
                submits_at_once=resolved.limits.submits_at_once,
                orphan_grace=self._cancel_orphans_after,
            )
            roster.start()
            self._rosters[resolved.cluster] = roster
        return roster

    def starts(self, resolved: Resolved) -> Turns:
        """Return the turns of those who start on this cluster."""
        return self._starts.setdefault(resolved.cluster, Turns(resolved.config.starts_at_once))

    async def aclose(self) -> None:
        """Stop watching, listening and writing. Jobs that were not ended go on."""
        try:
            await self._stop()
        finally:
            await self.records.aclose()  # last: an agent that is being admitted is written down
        for _ in range(CLOSING_TURNS):
            await asyncio.sleep(0)
        self.rundir.remove()

    async def _stop(self) -> None:
        for roster in self._rosters.values():
            await roster.aclose()
        for roster in self._rosters.values():
            with contextlib.suppress(ElsewhereError):
                await roster.backend.close()
        await self.switchboard.aclose()
        for pipe in list(self.pipes):
            pipe.abort()


def _dialled(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
