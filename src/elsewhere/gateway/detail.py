"""All that is told of one kernel: by REST, as an event, and to the command line that reads both."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer

DEAD, ENDING = "dead", "ending"
VOLATILE = frozenset({"last_activity", "spooled_bytes"})
"""What moves while a kernel computes, and is no news by itself."""


def stamp(moment: datetime) -> str:
    """Return the moment as front ends of Jupyter read it: with microseconds, and Z."""
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def moment(seconds: float) -> datetime:
    """Return a time of the wall's clock as a moment."""
    return datetime.fromtimestamp(seconds, timezone.utc)


Moment = Annotated[datetime, PlainSerializer(stamp, return_type=str)]


class KernelDetail(BaseModel):
    """One kernel at one moment. ``id`` to ``reason`` are Jupyter's own fields, the others ours.

    ``state`` is one word of those in ``docs/gateway.md``, ``status`` the same for a person. ``steps`` are
    those of the last start, in their order. Fields of a later release are ignored.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    name: str
    last_activity: Moment
    execution_state: str
    connections: int
    reason: str = ""
    owner: str = ""
    state: str
    status: str
    cluster: str = ""
    backend: str = ""
    host: str | None = None
    job_id: str | None = None
    launch: int = 0
    start: int = 0
    connected: bool = False
    steps: dict[str, Moment] = {}
    spooled_bytes: int = 0
    warnings: tuple[str, ...] = ()

    def differs(self, other: KernelDetail | None) -> bool:
        """Whether this is news to who was told the other."""
        return other is None or self._news() != other._news()

    def _news(self) -> dict[str, object]:
        return self.model_dump(exclude=set(VOLATILE))
