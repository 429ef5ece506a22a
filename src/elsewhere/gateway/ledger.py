"""The ledger: what a gateway must know again after its death, in SQLite.

One process at a time: a second one is refused while the first lives. Nobody else can read it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Executable,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from elsewhere.backend import Mark
from elsewhere.errors import ElsewhereError
from elsewhere.gateway.migrations import upgrade
from elsewhere.identity import Identity
from elsewhere.records import KernelRecord

FILE = "ledger.db"
_MAGIC = b"SQLite format 3\0"
LOCK = "ledger.lock"

metadata = MetaData()

homes = Table(
    "home",
    metadata,
    Column("home_id", String, primary_key=True),
    Column("authority", String, nullable=False),
    Column("certificate", String, nullable=False),
    Column("key", String, nullable=False),
)

kernels = Table(
    "kernel",
    metadata,
    Column("kernel_id", String, primary_key=True),
    Column("kernel_name", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("launch", Integer, nullable=False),
    Column("start", Integer, nullable=False),
    Column("stanza", JSON, nullable=False),
    Column("asked", JSON, nullable=False),
    Column("key", String, nullable=False),
    Column("signature_scheme", String, nullable=False),
    Column("token_hash", String, nullable=False),
    Column("secret_hash", String, nullable=False),
)


shares = Table(
    "share",
    metadata,
    Column("kernel_id", String, primary_key=True),
    Column("user", String, primary_key=True),
    Column("read_only", Boolean, nullable=False),
)


class LedgerInUse(ElsewhereError):
    """Another gateway has this ledger open; two of them would fight for the same kernels."""


class LedgerFailed(ElsewhereError):
    """The ledger cannot be written, so what was to be done is not done."""


@dataclass(frozen=True)
class _Write:
    """Statements that belong together; ``done`` once they are on the disk."""

    statements: Sequence[Executable]
    done: asyncio.Future[None]


class Ledger:
    """Records (see elsewhere.records) in a file of ``directory``, which is made private.

    ``open`` before use, on the loop that then uses it; ``aclose`` at the end. There is one writer, and what
    is to be written while it writes is written with the next commit: a disk takes long to commit, and two
    hundred starts at once are few commits.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self._directory = directory
        self._engine: AsyncEngine | None = None
        self._lock = -1
        self._waiting: deque[_Write] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Lock it, and bring its schema up to date. Raises LedgerInUse, ElsewhereError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self._directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            self._lock = -1
            raise LedgerInUse(
                f"another gateway is using {self.path}; stop it, or give this one a data directory of its own"
            ) from error
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._engine = create_async_engine(f"sqlite+aiosqlite:///{self.path}", pool_size=1, max_overflow=0)
        event.listen(self._engine.sync_engine, "connect", _write_ahead)
        try:
            async with self._engine.begin() as connection:
                await connection.run_sync(lambda sync: upgrade(sync, metadata, str(self.path)))
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Let go of it. May be called more than once."""
        if self._writer is not None:
            await asyncio.wait({self._writer})
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def identity(self) -> Identity:
        """Return the home's identity: the stored one, else a new one, stored."""
        async with self._begin() as connection:
            row = (await connection.execute(select(homes))).mappings().first()
            if row is not None:
                return Identity(**row)
            identity = Identity.create()
            await connection.execute(insert(homes).values(asdict(identity)))
            return identity

    async def check(self) -> None:
        """Read from it. Raises ElsewhereError when it cannot be read."""
        try:
            async with self._begin() as connection:
                await connection.execute(select(homes.c.home_id))
            with self.path.open("rb") as file:  # SQLite may have answered from what it keeps in memory
                whole = file.read(len(_MAGIC)) == _MAGIC
        except (SQLAlchemyError, OSError) as error:
            raise ElsewhereError(f"{self.path} cannot be read: {error}") from error
        if not whole:
            raise ElsewhereError(f"{self.path} is no ledger any more")

    async def kernels(self) -> list[KernelRecord]:
        """Return every kernel that is wanted."""
        names = {one.name for one in fields(KernelRecord)}
        async with self._begin() as connection:
            rows = (await connection.execute(select(kernels))).mappings()
            return [KernelRecord(**{name: row[name] for name in names}) for row in rows]

    async def shares(self) -> dict[str, dict[str, bool]]:
        """Return with whom kernels are shared, and whether read-only, by kernel and user."""
        found: dict[str, dict[str, bool]] = {}
        async with self._begin() as connection:
            for row in (await connection.execute(select(shares))).mappings():
                found.setdefault(row["kernel_id"], {})[row["user"]] = row["read_only"]
        return found

    async def share(self, kernel_id: str, user: str, read_only: bool | None) -> None:
        """Write with whom a kernel is shared; None: with this user no longer."""
        one = (shares.c.kernel_id == kernel_id, shares.c.user == user)
        there = {"kernel_id": kernel_id, "user": user, "read_only": read_only}
        more = [insert(shares).values(there)] if read_only is not None else []
        await self._write(delete(shares).where(*one), *more)

    # ---- Records

    async def launching(self, record: KernelRecord) -> None:
        """Write the launch in place of the kernel's earlier ones."""
        await self._write(_struck_out(record.kernel_id), insert(kernels).values(asdict(record)))

    async def starting(self, kernel_id: str, start: int, asked: Mapping[str, object]) -> None:
        """Write the number of the start."""
        one = kernels.c.kernel_id == kernel_id
        await self._write(update(kernels).where(one).values(start=start, asked=dict(asked)))

    async def token_used(self, mark: Mark, secret_hash: str) -> None:
        """Write whose token it is now."""
        one = (kernels.c.kernel_id == mark.kernel_id, kernels.c.launch == mark.launch)
        await self._write(update(kernels).where(*one).values(secret_hash=secret_hash))

    async def ended(self, kernel_id: str) -> None:
        """Strike it out."""
        await self._write(_struck_out(kernel_id), delete(shares).where(shares.c.kernel_id == kernel_id))

    # ---- the writer

    async def _write(self, *statements: Executable) -> None:
        """Return when they are on the disk. Raises LedgerFailed."""
        if self._engine is None:
            raise ElsewhereError("the ledger is closed")
        loop = asyncio.get_running_loop()
        write = _Write(statements, loop.create_future())
        self._waiting.append(write)
        if self._writer is None or self._writer.done():
            self._writer = loop.create_task(self._write_what_waits())
        await write.done

    async def _write_what_waits(self) -> None:
        while self._waiting:
            together = list(self._waiting)
            self._waiting.clear()
            if not await self._commit(together, last=len(together) == 1):
                for write in together:  # one of them is to blame, not all
                    await self._commit([write], last=True)

    async def _commit(self, writes: Sequence[_Write], *, last: bool) -> bool:
        """Write all or nothing, and return whether it was all; the last attempt tells who waits."""
        try:
            async with self._begin() as connection:
                for write in writes:
                    for statement in write.statements:
                        await connection.execute(statement)
        except (SQLAlchemyError, OSError, ValueError) as error:
            if last:
                reason = getattr(error, "orig", None) or error
                _settle(writes, LedgerFailed(f"cannot write {self.path}: {reason}"))
            return False
        _settle(writes)
        return True

    def _begin(self) -> Any:
        if self._engine is None:
            raise ElsewhereError("the ledger is closed")
        return self._engine.begin()


def _struck_out(kernel_id: str) -> Executable:
    return delete(kernels).where(kernels.c.kernel_id == kernel_id)


def _settle(writes: Sequence[_Write], error: LedgerFailed | None = None) -> None:
    for write in writes:
        if write.done.done():
            continue  # who waited was cancelled
        if error is None:
            write.done.set_result(None)
        else:
            write.done.set_exception(error)


def _write_ahead(connection: Any, record: object) -> None:
    """A commit is one write, and it is on the disk."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()
