"""The ledger: what was written is there again, for one process, and for nobody else's eyes."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from elsewhere.backend import Mark
from elsewhere.errors import ElsewhereError
from elsewhere.gateway.ledger import Ledger, LedgerFailed, LedgerInUse
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


async def test_hundreds_write_at_once_and_all_of_it_is_there(tmp_path: Path) -> None:
    """Several connections, each with its transaction, would find the database locked."""
    ledger = await reopened(tmp_path)
    records = [replace(RECORD, kernel_id=f"k{number}") for number in range(300)]
    await asyncio.gather(*(ledger.launching(record) for record in records))
    await asyncio.gather(
        *(ledger.token_used(Mark("home", record.kernel_id, 1), "secret") for record in records[:200]),
        *(ledger.ended(record.kernel_id) for record in records[200:]),
    )
    found = await ledger.kernels()
    assert sorted(record.kernel_id for record in found) == sorted(one.kernel_id for one in records[:200])
    assert {record.secret_hash for record in found} == {"secret"}
    await ledger.aclose()


async def test_who_is_cancelled_while_it_writes_harms_no_other(tmp_path: Path) -> None:
    ledger = await reopened(tmp_path)
    writes = [
        asyncio.create_task(ledger.launching(replace(RECORD, kernel_id=f"k{number}"))) for number in range(20)
    ]
    await asyncio.sleep(0)
    for write in writes[::2]:
        write.cancel()
    await asyncio.gather(*writes, return_exceptions=True)
    assert {f"k{number}" for number in range(1, 20, 2)} <= {one.kernel_id for one in await ledger.kernels()}
    await ledger.aclose()


async def test_what_cannot_be_written_fails_alone(tmp_path: Path) -> None:
    ledger = await reopened(tmp_path)
    wrong = replace(RECORD, kernel_id="wrong", asked={"no": object()})
    results = await asyncio.gather(
        ledger.launching(RECORD), ledger.launching(wrong), ledger.ended("other"), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), LedgerFailed, type(None)]
    assert await ledger.kernels() == [RECORD]
    await ledger.aclose()


async def test_a_full_disk_is_told_and_over_when_there_is_room_again(tmp_path: Path) -> None:
    ledger = await reopened(tmp_path)
    await ledger.launching(RECORD)
    large = replace(RECORD, kernel_id="large", asked={"env": {"KERNEL_X": "x" * 10_000_000}})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(LedgerFailed, match=r"cannot write .*ledger\.db: "):
            await ledger.launching(large)
        assert await ledger.kernels() == [RECORD]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    await ledger.launching(large)
    assert {one.kernel_id for one in await ledger.kernels()} == {"k", "large"}
    await ledger.aclose()


async def test_shares_are_there_again_and_end_with_their_kernel(tmp_path: Path) -> None:
    ledger = await reopened(tmp_path)
    await ledger.launching(RECORD)
    await ledger.share("k", "bob", False)
    await ledger.share("k", "bob", True)
    await ledger.share("k", "carol", False)
    await ledger.share("k", "carol", None)
    await ledger.share("other", "bob", False)
    await ledger.launching(replace(RECORD, launch=2))
    await ledger.aclose()
    ledger = await reopened(tmp_path)
    assert await ledger.shares() == {"k": {"bob": True}, "other": {"bob": False}}
    await ledger.ended("k")
    assert await ledger.shares() == {"other": {"bob": False}}
    await ledger.aclose()


async def test_a_ledger_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """As the first release wrote it."""
    ledger = await reopened(tmp_path)
    await ledger.launching(RECORD)
    await ledger.aclose()
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("DROP TABLE share")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    ledger = await reopened(tmp_path)
    assert await ledger.kernels() == [RECORD]
    await ledger.share("k", "bob", True)
    assert await ledger.shares() == {"k": {"bob": True}}
    await ledger.aclose()
    with sqlite3.connect(ledger.path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    connection.close()
