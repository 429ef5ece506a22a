"""Who sees what becomes of a job without asking the backend: the job itself, which holds a call to us."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elsewhere.backend import Mark, Parcel
from elsewhere.settings import Switchboard
from elsewhere.testing import probe

_PROGRAM = Path(probe.__file__).read_bytes()

PADDING = 200_000
"""Bytes in a parcel, more than a real one has: what cuts long input short is found."""


class LawBroken(AssertionError):
    """What a law promises did not come to pass."""


class Probe:
    """One job that runs, as it told us itself. It is alive for as long as its call lasts."""

    def __init__(self, told: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.mark = Mark.parse(told["mark"])
        self.host: str = told["host"]
        self.digest: str = told["digest"]
        self.shown: list[str] = told["shown"]
        self.open_to_others: bool = told["open_to_others"]
        self.signals: list[int] = []
        self.done = 0
        self.alive = True
        self._writer = writer

    def order(self, **words: object) -> None:
        """Have it ``print`` lines, ``exit`` with a code, or ``kill`` itself with a signal."""
        self._writer.write(json.dumps(words).encode() + b"\n")


class Witness:
    """Listens for the probes of one law. ``probes``: all that ever called, in the order of their calls."""

    def __init__(self, where: Switchboard, patience: float) -> None:
        self.probes: list[Probe] = []
        self._where = where
        self._patience = patience
        self._secret = secrets.token_hex(16)
        self._news = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._addresses: tuple[tuple[str, int], ...] = ()

    async def open(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._called, self._where.bind, self._where.port)
        self._addresses = self._where.addresses(self._server.sockets[0].getsockname()[1])

    async def aclose(self) -> None:
        """Hang up on all probes, which end by that."""
        if self._server is not None:
            self._server.close()
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def parcel(self, mark: Mark, *, stubborn: bool, canary: str) -> Parcel:
        """Return what runs a probe in a job; it holds ``canary`` as a real one holds its secrets."""
        content = io.BytesIO()
        given = {
            "mark": str(mark),
            "secret": self._secret,
            "addresses": self._addresses,
            "patience": self._patience,
            "stubborn": stubborn,
        }
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("__main__.py", _PROGRAM)
            archive.writestr(probe.MEMBER, json.dumps(given))
            archive.writestr("canary", canary)
            archive.writestr("padding", secrets.token_bytes(PADDING))
        return Parcel(content.getvalue())

    def of(self, mark: Mark, *, alive: bool = False) -> list[Probe]:
        """Return the probes of one launch: all that ever called, or those that live."""
        return [one for one in self.probes if one.mark == mark and (one.alive or not alive)]

    async def probe(self, mark: Mark) -> Probe:
        """Wait until the job of this launch calls. Raises LawBroken."""
        await self.until(lambda: bool(self.of(mark)), f"the job {mark} runs, and can call the law")
        return self.of(mark)[0]

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for what the probes tell. Raises LawBroken."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while not holds():
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), deadline - loop.time())
            except asyncio.TimeoutError as error:
                raise LawBroken(f"not within {self._patience:g} s: {what}") from error

    def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._listen(reader, writer), name="probe")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller: Probe | None = None
        try:
            told = json.loads(await reader.readline())
            if told.get("secret") != self._secret:
                return
            caller = Probe(told, writer)
            self.probes.append(caller)
            self._news.set()
            while line := await reader.readline():
                self._take(caller, json.loads(line))
        except (OSError, ValueError):
            return  # it is over, or it is no probe
        finally:
            if caller is not None:
                caller.alive = False
            self._news.set()
            writer.close()

    def _take(self, caller: Probe, told: dict[str, Any]) -> None:
        if "signal" in told:
            caller.signals.append(told["signal"])
        if "done" in told:
            caller.done += 1
        self._news.set()
