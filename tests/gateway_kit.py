"""A gateway as a process of its own, and a client that knows nothing but its HTTP and websockets."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websocket

from site_kit import PATIENCE, Site, until

PROGRAM = str(Path(sys.executable).with_name("elsewhere"))
SERVE = (PROGRAM, "serve", "--allow-root", "--ip=127.0.0.1")


def free_port() -> int:
    """A port that nothing listens on, below those that the system gives to outgoing connections."""
    while True:
        port = random.randrange(12000, 30000)
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Gateway:
    """One gateway of a site, which may be killed and started again on the same data directory."""

    serve: Sequence[str] = SERVE

    def __init__(self, site: Site) -> None:
        self.port = free_port()
        self.data = site.root / "gateway"
        self.log = site.root / "gateway.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.authority: Path | None = None
        self.base_url = "/"

    @property
    def url(self) -> str:
        """Where it is served, without a slash at the end."""
        scheme = "https" if self.authority else "http"
        return f"{scheme}://127.0.0.1:{self.port}{self.base_url}".rstrip("/")

    @property
    def argv(self) -> list[str]:
        return [*self.serve, f"--port={self.port}", f"--data-directory={self.data}"]

    def start(self, *more: str, stdin: int | None = None) -> None:
        argv = [*self.argv, *more]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=stdin, stdout=log, stderr=log, env=os.environ)
        until(lambda: self._answers() or self.ended(), "the gateway answers")
        assert not self.ended(), self.log.read_text()

    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def stop(self, signum: int) -> int:
        """Signal it and return its exit code."""
        assert self.process is not None
        self.process.send_signal(signum)
        return self.process.wait(PATIENCE)

    @property
    def token(self) -> str:
        """The kept one; none for a gateway that was told to ask for none."""
        kept = self.data / "token"
        return kept.read_text().strip() if kept.exists() else ""

    def ask(self, method: str, path: str, body: object = None, token: str | None = None) -> tuple[int, Any]:
        """Return the status and the answer's JSON (or text) of one request."""
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        request.add_header("Authorization", f"token {self.token if token is None else token}")
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, PATIENCE, context=self.tls()) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        try:
            return status, json.loads(content) if content else None
        except ValueError:
            return status, content.decode(errors="replace")

    def kernel(self, name: str = "away", **body: object) -> str:
        """Ask for a kernel and return its id at once."""
        status, model = self.ask("POST", "/api/kernels", {"name": name, **body})
        assert (status, model.get("execution_state")) == (201, "starting"), model
        return str(model["id"])

    def detail(self, kernel_id: str) -> dict[str, Any]:
        status, model = self.ask("GET", f"/api/kernels/{kernel_id}")
        assert status == 200
        assert isinstance(model, dict)
        return model

    def until_state(self, kernel_id: str, *states: str) -> dict[str, Any]:
        until(lambda: self.detail(kernel_id)["execution_state"] in states, f"kernel is {states}")
        return self.detail(kernel_id)

    @contextmanager
    def client(self, kernel_id: str) -> Iterator[Client]:
        """A websocket to a kernel."""
        url = f"{self.url}/api/kernels/{kernel_id}/channels?session_id={uuid.uuid4().hex}"
        header = [f"Authorization: token {self.token}"]
        connection = websocket.create_connection(
            url.replace("http", "ws", 1),
            header=header,
            timeout=PATIENCE,
            sslopt={"context": self.tls()} if self.authority else None,
        )
        try:
            yield Client(connection)
        finally:
            connection.close()

    def tls(self) -> ssl.SSLContext | None:
        """What trusts its certificate, if it has one."""
        return ssl.create_default_context(cafile=str(self.authority)) if self.authority else None

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/readyz", token="")[0] == 200
        except OSError:
            return False


class Client:
    """The legacy protocol of a front end."""

    def __init__(self, connection: websocket.WebSocket) -> None:
        self._connection = connection

    @property
    def address(self) -> object:
        """The front end's own end."""
        assert self._connection.sock is not None
        return self._connection.sock.getsockname()

    def send(self, code: str) -> str:
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": "execute_request",
            "session": "s",
            "username": "u",
            "version": "5.3",
            "date": "2026-01-01T00:00:00.000000Z",
        }
        content = {"code": code, "silent": False}
        message = {
            "channel": "shell",
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
        }
        self._connection.send(json.dumps(message))
        return header["msg_id"]

    def run(self, code: str) -> str:
        """Execute and return what was printed; an error's value is returned as its text."""
        asked = self.send(code)
        printed, replied, idle = "", False, False
        deadline = time.monotonic() + PATIENCE
        while not (replied and idle):
            if time.monotonic() > deadline:
                pytest.fail(f"no answer to {code!r}")
            message = json.loads(self._connection.recv())
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "stream" and content["name"] == "stdout":
                printed += content["text"]
            elif kind == "error":
                printed += "\n".join(content["traceback"])
            replied = replied or kind == "execute_reply"
            idle = idle or (kind == "status" and content["execution_state"] == "idle")
        return printed


@contextmanager
def gateway_of(site: Site, *more: str) -> Iterator[Gateway]:
    """A started gateway, which ends its kernels at the end."""
    gateway = Gateway(site)
    gateway.start("--shutdown-kernels", *more)
    try:
        yield gateway
    finally:
        if not gateway.ended():
            assert gateway.stop(signal.SIGTERM) == 0, gateway.log.read_text()


def no_jobs(site: Site) -> None:
    """Wait until no job is left, while the gateway lives."""
    until(lambda: not site.job_processes() and not list(site.jobs.iterdir()), "no job is left")


def listed(gateway: Gateway) -> list[str]:
    """The ids that the gateway lists."""
    return [model["id"] for model in gateway.ask("GET", "/api/kernels")[1]]


def routes(site: Site) -> list[tuple[str, str, list[str]]]:
    """What a gateway serves: each pattern with the name of its handler and its methods, as they are tried."""
    program = Path(__file__).with_name("gateway_routes.py")
    argv = [sys.executable, str(program), str(site.root / "data of routes"), str(free_port())]
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    return [(pattern, handler, methods) for pattern, handler, methods in json.loads(shown)]


def ledger_of(gateway: Gateway) -> Path:
    return gateway.data / "ledger.db"
