"""The ledger: what was written is there again, for one process, and for nobody else's eyes."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from elsewhere.backend import Mark
from elsewhere.errors import ElsewhereError
from elsewhere.gateway.ledger import Ledger, LedgerInUse
from elsewhere.gateway.migrations import SCHEMA
from elsewhere.records import KernelRecord

RECORD = KernelRecord(
    kernel_id="k",
    kernel_name="python3",
    owner="ann",
    launch=1,
    start=1,
    stanza={"backend": "local", "options": {"nice": 3}},
    asked={"env": {"KERNEL_X": "'\"; DROP TABLE kernel; --"}, "cwd": "/tmp"},
    key="key",
    signature_scheme="hmac-sha256",
    token_hash="hash",
)


async def reopened(directory: Path) -> Ledger:
    ledger = Ledger(directory)
    await ledger.open()
    return ledger


async def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    ledger = await reopened(tmp_path)
    identity = await ledger.identity()
    await ledger.launching(RECORD)
    await ledger.launching(replace(RECORD, kernel_id="other"))
    await ledger.token_used(Mark(identity.home_id, "k", 1), "secret")
    await ledger.starting("k", 2, {"env": {}})
    await ledger.ended("other")
    await ledger.ended("other")
    await ledger.aclose()
    ledger = await reopened(tmp_path)
    assert await ledger.identity() == identity
    assert await ledger.kernels() == [replace(RECORD, start=2, secret_hash="secret", asked={"env": {}})]
    await ledger.aclose()


async def test_a_new_launch_replaces_the_old_one_and_its_secret(tmp_path: Path) -> None:
    ledger = await reopened(tmp_path)
    await ledger.launching(RECORD)
    await ledger.token_used(Mark("home", "k", 1), "secret")
    await ledger.launching(replace(RECORD, launch=2, token_hash="new"))
    await ledger.token_used(Mark("home", "k", 1), "late")
    assert await ledger.kernels() == [replace(RECORD, launch=2, token_hash="new")]
    await ledger.aclose()


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    first = await reopened(tmp_path)
    with pytest.raises(LedgerInUse, match="another gateway"):
        await reopened(tmp_path)
    await first.aclose()
    await (await reopened(tmp_path)).aclose()


async def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    ledger = await reopened(tmp_path)
    await ledger.launching(RECORD)
    for path in tmp_path.iterdir():
        assert not path.stat().st_mode & 0o077, path
    await ledger.aclose()


async def test_a_ledger_of_a_later_release_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    ledger = await reopened(tmp_path)
    await ledger.launching(RECORD)
    await ledger.aclose()
    with sqlite3.connect(ledger.path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()
    with pytest.raises(ElsewhereError, match="later release"):
        await reopened(tmp_path)


async def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    ledger = await reopened(tmp_path)
    await ledger.aclose()
    with pytest.raises(ElsewhereError, match="closed"):
        await ledger.launching(RECORD)
