"""Who did what with which kernel, from where, and whether they were let: one event for each request.

Bodies, queries and environments are never part of it. Source: jupyter_events' documentation of schemas.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jupyter_events import EventLogger

SCHEMA_ID = "https://elsewhere.invalid/events/kernel_access/v1"
SCHEMA: dict[str, Any] = {
    "$id": SCHEMA_ID,
    "version": "1",
    "title": "Kernel access",
    "description": "Somebody asked a gateway to do something with a kernel.",
    "personal-data": True,
    "type": "object",
    "required": ["who", "act", "allowed", "status", "address"],
    "properties": {
        "who": {"type": "string", "description": "The person; empty for the gateway's own token."},
        "role": {"type": "string", "description": "user, service, admin; empty for nobody."},
        "act": {"type": "string", "description": "start, list, see, send, control, end, share …"},
        "kernel_id": {"type": "string"},
        "owner": {"type": "string", "description": "Whose kernel it is, or will be."},
        "method": {"type": "string"},
        "path": {"type": "string", "description": "Of the URL, without its query."},
        "address": {"type": "string"},
        "allowed": {"type": "boolean"},
        "status": {"type": "integer"},
    },
}
STDOUT = "-"
LONGEST = 10 * 1024 * 1024
KEPT = 5


@dataclass(frozen=True)
class Access:
    """One event."""

    who: str
    role: str
    act: str
    kernel_id: str
    owner: str
    method: str
    path: str
    address: str
    allowed: bool
    status: int


class Audit:
    """Writes events as lines of JSON to a file, which is rotated at 10 MiB and kept five times, or to stdout.

    Raises OSError when the file cannot be had.
    """

    def __init__(self, target: str) -> None:
        handler: logging.Handler
        if target == STDOUT:
            handler = logging.StreamHandler(sys.stdout)
        else:
            path = Path(target)
            path.touch(mode=0o600)
            handler = logging.handlers.RotatingFileHandler(path, maxBytes=LONGEST, backupCount=KEPT)
        self._handler = handler
        self._events = EventLogger(handlers=[handler])
        self._events.register_event_schema(SCHEMA)

    def tell(self, access: Access) -> None:
        """Write one."""
        self._events.emit(schema_id=SCHEMA_ID, data=asdict(access))

    def close(self) -> None:
        """Write no more."""
        self._handler.close()
