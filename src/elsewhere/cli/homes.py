"""The homes that are known on this machine: those of gateways, read in their ledgers, which is no change."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elsewhere.cli.client import started
from elsewhere.cli.findings import KnownHome, Wanted
from elsewhere.errors import ElsewhereError
from elsewhere.gateway.inspection import ledger_of, reading
from elsewhere.gateway.ledger import FILE


def data_directories(default: Path) -> list[Path]:
    """Return those that have a ledger: the default one, and those of gateways that were started here."""
    here = (one.data_directory for one in started())
    found = dict.fromkeys(path.resolve() for path in (default, *here))
    return [path for path in found if (path / FILE).is_file()]


def read_home(directory: Path) -> KnownHome | None:
    """Return the home of a gateway's data directory; None before its gateway was first started.

    Raises ElsewhereError if there is no ledger, or it cannot be read.
    """
    path = ledger_of(directory)
    try:
        with reading(path) as database:
            home = database.execute("SELECT home_id FROM home").fetchone()
            rows: Sequence[Any] = database.execute("SELECT kernel_id, launch, stanza FROM kernel").fetchall()
        kernels = {str(row[0]): Wanted(int(row[1]), json.loads(row[2])) for row in rows}
    except (sqlite3.Error, ValueError) as error:
        raise ElsewhereError(f"{path} cannot be read: {error}") from error
    return KnownHome(str(home[0]), directory, kernels) if home is not None else None
