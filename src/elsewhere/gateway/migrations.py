"""The ledger's schema version, and the way from each older one to the present."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Connection, MetaData, text

from elsewhere.errors import ElsewhereError

SCHEMA = 2


def _shares(connection: Connection) -> None:
    """Kernels can be shared."""
    connection.execute(
        text(
            "CREATE TABLE share (kernel_id VARCHAR NOT NULL, user VARCHAR NOT NULL, "
            "read_only BOOLEAN NOT NULL, PRIMARY KEY (kernel_id, user))"
        )
    )


STEPS: Mapping[int, Callable[[Connection], None]] = {1: _shares}
"""From version n to n + 1. A step is never changed once it was released."""


def upgrade(connection: Connection, metadata: MetaData, where: str) -> None:
    """Make the tables of a new ledger, or bring an older one up to date, all or nothing.

    Raises ElsewhereError for a ledger that a later release has written.
    """
    version = int(connection.execute(text("PRAGMA user_version")).scalar_one())
    if version > SCHEMA:
        raise ElsewhereError(
            f"{where} was written by a later release (schema {version}, this one knows {SCHEMA}); "
            "run that release, or start with another data directory"
        )
    if version == 0:
        metadata.create_all(connection)
    else:
        for number in range(version, SCHEMA):
            STEPS[number](connection)
    connection.execute(text(f"PRAGMA user_version = {SCHEMA}"))
