"""A look at a gateway's data directory from outside; changes nothing, whether the gateway runs or not."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elsewhere.errors import ElsewhereError
from elsewhere.gateway.ledger import FILE, LOCK
from elsewhere.gateway.migrations import SCHEMA

SESSIONS, TOKEN = "sessions.db", "token"
FORMAT = 1
"""Of what ``exported`` returns; raised when a field changes its meaning or goes."""


@dataclass(frozen=True)
class Findings:
    """What is known of a ledger. ``problems`` are sentences; there are none in a good one."""

    path: str
    schema: int = 0
    kernels: int = 0
    pending: int = 0
    in_use: bool = False
    problems: Sequence[str] = field(default_factory=tuple)


def check(directory: Path) -> Findings:
    """Look whether the ledger can be used by this release. Raises ElsewhereError if there is none."""
    path = ledger_of(directory)
    problems = [
        f"{one} can be read by others (mode {mode:04o}); chmod 600 it"
        for one in (path, directory / TOKEN)
        if one.exists() and (mode := stat.S_IMODE(one.stat().st_mode)) & 0o077
    ]
    try:
        with reading(path) as database:
            schema = int(database.execute("PRAGMA user_version").fetchone()[0])
            sound = database.execute("PRAGMA integrity_check").fetchone()[0]
            if sound != "ok":
                problems.append(f"{path} is damaged: {sound}")
            if schema > SCHEMA:
                problems.append(
                    f"{path} was written by a later release (schema {schema}, this one knows {SCHEMA})"
                )
            counts = "SELECT count(*), count(*) FILTER (WHERE secret_hash = '') FROM kernel"
            kernels, pending = database.execute(counts).fetchone() if schema <= SCHEMA else (0, 0)
    except sqlite3.Error as error:
        return Findings(str(path), in_use=_in_use(directory), problems=(f"{path} cannot be read: {error}",))
    return Findings(str(path), schema, kernels, pending, _in_use(directory), tuple(problems))


def exported(directory: Path) -> Mapping[str, Any]:
    """Return the kernels and sessions as JSON data, with no secret: no keys or hashes, of env only names.

    Raises ElsewhereError if there is no ledger, or it cannot be read.
    """
    path = ledger_of(directory)
    try:
        with reading(path) as database:
            rows = database.execute(
                "SELECT kernel_id, kernel_name, owner, launch, start, stanza, asked FROM kernel ORDER BY 1"
            ).fetchall()
        kernels = [_kernel(row) for row in rows]
        sessions = _sessions(directory / SESSIONS)
    except (sqlite3.Error, ValueError) as error:
        raise ElsewhereError(f"{path} cannot be read: {error}") from error
    return {"format": FORMAT, "kernels": kernels, "sessions": sessions}


def _kernel(row: sqlite3.Row) -> dict[str, Any]:
    asked = json.loads(row["asked"])
    return {
        "kernel_id": row["kernel_id"],
        "kernel_name": row["kernel_name"],
        "owner": row["owner"],
        "launch": row["launch"],
        "start": row["start"],
        "stanza": json.loads(row["stanza"]),
        "cwd": asked.get("cwd"),
        "env": sorted(asked.get("env") or {}),
    }


def _sessions(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with reading(path) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE name = 'session'").fetchall()
        if not tables:
            return []
        rows = database.execute("SELECT session_id, path, name, type, kernel_id FROM session ORDER BY 1")
        return [dict(row) for row in rows]


def ledger_of(directory: Path) -> Path:
    """Return the path of a data directory's ledger. Raises ElsewhereError if there is none."""
    path = directory / FILE
    if not path.is_file():
        raise ElsewhereError(
            f"there is no ledger in {directory}; name a gateway's data directory with --data-directory"
        )
    return path


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Lend a database to be read, and leave nothing beside it."""
    # Without a write-ahead log nobody has the file open, and SQLite need not even make one to read it.
    how = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    database = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)
    database.row_factory = sqlite3.Row
    try:
        yield database
    finally:
        database.close()


def _in_use(directory: Path) -> bool:
    try:
        lock = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
