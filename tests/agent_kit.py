"""A switchboard in the test's own loop, and real agents that run a fake kernel, each with its parcel."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio

from elsewhere import parcel as parcels
from elsewhere.agent.boot import SCRATCH
from elsewhere.backend import Mark, Order
from elsewhere.endpoints import Endpoints
from elsewhere.identity import Identity
from elsewhere.line import Admission, Line
from elsewhere.parcel import Graces, Signing, SpoolLimits, order_fields, pack
from elsewhere.switchboard import Switchboard, digest

PATIENCE = 30.0
"""Seconds after which something is believed not to happen: the machine may be busy."""
FAKE_KERNEL = str(Path(__file__).with_name("fake_kernel.py"))
IDENTITY = Identity.create()
GRACES = Graces(idle=PATIENCE, orphan=PATIENCE, stop=5.0, keepalive=5.0)


def argv(*options: str) -> tuple[str, ...]:
    return (sys.executable, FAKE_KERNEL, "{connection_file}", *options)


async def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Return once the condition holds; fail the test, saying what did not happen, after that time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while not condition():
        if loop.time() > deadline:
            pytest.fail(f"not within {patience:g} s: {what}")
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@dataclass
class Home:
    """A switchboard that listens; ``reopen`` is the restart of the process that holds it."""

    switchboard: Switchboard
    directory: Path
    port: int = 0
    identity: Identity = IDENTITY

    @property
    def address(self) -> parcels.Home:
        return parcels.Home(self.identity.name, self.identity.authority, (f"127.0.0.1:{self.port}",))

    def expect(self, mark: Mark, token: str, secret_hash: str = "") -> Line:
        return self.switchboard.expect(mark, Admission(digest(token), secret_hash))


@asynccontextmanager
async def open_home(directory: Path, port: int = 0, **kwargs: Any) -> AsyncIterator[Home]:
    """Listen; at the end hang up on everybody, as a home that goes does."""
    switchboard = Switchboard(IDENTITY.home_id, IDENTITY.server_context(directory), keepalive=5.0, **kwargs)
    home = Home(switchboard, directory, await switchboard.listen("127.0.0.1", port))
    try:
        yield home
    finally:
        await switchboard.aclose()
        for line in list(switchboard.lines.values()):
            line.publisher.close()
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert switchboard._callers == set()


@dataclass
class Job:
    """An agent that runs, and the line on which it calls."""

    process: asyncio.subprocess.Process
    mark: Mark
    token: str
    line: Line
    parcel: Path
    runtime: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    async def ready(self, start: int = 1) -> None:
        await until(lambda: self._is("ready", start), f"start {start} is ready")

    async def exited(self, start: int = 1) -> None:
        await until(lambda: self._is("exited", start), f"start {start} has exited")

    def _is(self, phase: str, start: int) -> bool:
        report = self.line.report
        return report is not None and (report.phase, report.start) == (phase, start)

    async def over(self) -> str:
        """Wait for the end of the agent; returns all that it and the kernel printed."""
        output, _ = await asyncio.wait_for(self.process.communicate(), PATIENCE)
        return output.decode()

    def left(self) -> list[str]:
        """The agent's files that are still there."""
        files = [*self.runtime.rglob("*"), *([self.parcel] if self.parcel.exists() else [])]
        return [str(path) for path in files]


def order_of(start: int = 1, **fields: Any) -> dict[str, Any]:
    """A start order for the fake kernel; ``options`` are its own."""
    options = fields.pop("options", ())
    fields.setdefault("argv", argv(*options))
    fields.setdefault("transport", "ipc")
    return order_fields(start, Order(**fields), "fake", Signing("k" * 32))


@asynccontextmanager
async def job_of(
    home: Home,
    tmp_path: Path,
    *,
    order: Mapping[str, Any] | None = None,
    python: str = sys.executable,
    address: parcels.Home | None = None,
    env: Mapping[str, str] | None = None,
    spool: SpoolLimits | None = None,
    scratch: Path | None = None,
    **graces: float,
) -> AsyncIterator[Job]:
    """Run an agent from its parcel; it is killed at the end if it still runs."""
    mark = Mark(IDENTITY.home_id, "kernel-" + secrets.token_hex(2), 1)
    token = secrets.token_urlsafe(32)
    line = home.expect(mark, token)
    content = pack(
        mark,
        address or home.address,
        token,
        order or order_of(),
        replace(GRACES, **graces),
        spool or SpoolLimits(),
    ).content
    path = tmp_path / f"{mark.kernel_id}.pyz"
    path.touch(0o600)
    path.write_bytes(content)
    runtime = tmp_path / ("x" + secrets.token_hex(2))
    runtime.mkdir(0o700)
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(runtime)}
    if scratch is not None:
        environ[SCRATCH] = str(scratch)
    process = await asyncio.create_subprocess_exec(
        python,
        str(path),
        env=environ | dict(env or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
    )
    try:
        yield Job(process, mark, token, line, path, runtime)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()
        line.end("the test is over")
        await asyncio.sleep(0)


class Client:
    """Stock ZeroMQ sockets on a line's endpoints."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._context = zmq.asyncio.Context()
        self.shell = self._connect(zmq.DEALER, endpoints, "shell")
        self.iopub = self._connect(zmq.SUB, endpoints, "iopub")
        self.iopub.subscribe(b"")
        self.hb = self._connect(zmq.REQ, endpoints, "hb")

    def _connect(self, kind: int, endpoints: Endpoints, channel: str) -> Any:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.rcvhwm = 0
        socket.connect(f"ipc://{endpoints.ip}-{endpoints.ports[f'{channel}_port']}")
        return socket

    async def ask(self, *words: str) -> str:
        """Tell the kernel to do something and return its answer."""
        await self.tell(*words)
        return (await self._receive(self.shell))[0].decode()

    async def tell(self, *words: str) -> None:
        await self.shell.send_multipart([word.encode() for word in words])

    async def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(await self.ask("facts"))
        return facts

    async def numbers(self, count: int) -> list[int]:
        """Return so many numbers that the kernel published."""
        return [int((await self._receive(self.iopub))[1]) for _ in range(count)]

    async def beats(self) -> bool:
        await self.hb.send(b"ping")
        return await self._receive(self.hb) == [b"ping"]

    async def _receive(self, socket: Any) -> list[bytes]:
        parts: list[bytes] = await asyncio.wait_for(socket.recv_multipart(), PATIENCE)
        return parts

    def close(self) -> None:
        self._context.destroy(linger=0)


@asynccontextmanager
async def client_of(line: Line, directory: Path) -> AsyncIterator[Client]:
    """Endpoints for the line, and a client on them."""
    endpoints = Endpoints(directory, line.connect)
    await endpoints.open()
    client = Client(endpoints)
    try:
        yield client
    finally:
        client.close()
        endpoints.close()
        line.publisher.close()
        await asyncio.sleep(0.01)
