"""When a kernel has been idle for so long that it is ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Culling:
    """The settings of one kernel, with the meanings that jupyter_server gives them."""

    idle_timeout: float
    connected: bool
    busy: bool


def is_due(
    culling: Culling, *, state: str, pending: bool, connections: int, last_activity: datetime, now: datetime
) -> bool:
    """Whether a kernel is to be ended.

    One that is pending has not been idle yet, however long it waits in its queue. One that is dead shows
    why for as long as an idle one is kept, whoever is connected to it.
    """
    if culling.idle_timeout <= 0 or pending:
        return False
    if (now - last_activity).total_seconds() <= culling.idle_timeout:
        return False
    if state == "dead":
        return True
    return (culling.busy or state != "busy") and (culling.connected or not connections)
