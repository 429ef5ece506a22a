"""JupyterLab's own server in front of a gateway: what a browser talks to when people share kernels."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway_kit import Gateway, free_port
from site_kit import IPYKERNEL, Site, until

TOKEN = "of-the-lab"


class LabServer(Gateway):
    """A stock ``jupyter server`` whose kernels are a gateway's. It is asked as a gateway is."""

    def __init__(self, site: Site, gateway: Gateway) -> None:
        super().__init__(site)
        self.connects = [f"--gateway-url={gateway.url}", f"--GatewayClient.auth_token={gateway.token}"]
        self.port = free_port()
        self.log = site.root / "lab.log"
        self._site = site

    def start(self, *more: str, stdin: int | None = None) -> None:
        argv = [
            sys.executable,
            "-m",
            "jupyter_server",
            *self.connects,
            f"--port={self.port}",
            f"--IdentityProvider.token={TOKEN}",
            f"--ServerApp.root_dir={self._site.work}",
            "--no-browser",
            "--allow-root",
            *more,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=stdin, stdout=log, stderr=log, env=os.environ)
        until(lambda: self._answers() or self.ended(), "the lab's server answers")
        assert not self.ended(), self.log.read_text()

    @property
    def token(self) -> str:
        return TOKEN

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/api/status")[0] == 200
        except OSError:
            return False

    def open(self, path: str, kernel: str = "away") -> tuple[str, str]:
        """Open a notebook; returns the ids of its session and kernel."""
        asked = {"path": path, "name": path, "type": "notebook", "kernel": {"name": kernel}}
        status, model = self.ask("POST", "/api/sessions", asked)
        assert status == 201, model
        return str(model["id"]), str(model["kernel"]["id"])


@contextmanager
def lab_of(site: Site, gateway: Gateway, *more: str, line: str | None = None) -> Iterator[LabServer]:
    """A started server in front of a gateway, connected by the words of that line if there is one.

    It leaves its kernels to whoever ends the gateway.
    """
    lab = LabServer(site, gateway)
    lab.connects = line.split() if line else lab.connects
    lab.start(*more)
    try:
        yield lab
    finally:
        if not lab.ended():
            assert lab.stop(signal.SIGKILL) == -signal.SIGKILL


class Gate:
    """A kernel's program that waits until it is opened, as a kernel in a queue does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def argv(self) -> tuple[str, ...]:
        wait = (
            f"import os, sys, time\nwhile not os.path.exists({str(self.path)!r}): time.sleep(0.02)\n"
            f"os.execv(sys.executable, [sys.executable, *{list(IPYKERNEL[1:-1])!r}, sys.argv[1]])"
        )
        return (sys.executable, "-c", wait, IPYKERNEL[-1])

    def open(self) -> None:
        self.path.touch()
