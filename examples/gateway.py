"""A gateway in a process of its own, and a notebook that is executed through it.

The client is ``jupyter_kernel_client``, which has nothing to do with this project: REST and a websocket.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import requests
from jupyter_kernel_client import JupyterKernelClient
from nbformat import NotebookNode
from steps import Steps

from elsewhere.cli.client import Client, GatewayUnusable, find

LOOK = 0.02
START_TIMEOUT = 60.0
CELL_TIMEOUT = 120.0
END_TIMEOUT = 60.0
SERVE = ("serve", "--ip=127.0.0.1", "--port=0", "--allow-root", "--shutdown-kernels")
UNUSED = ("--MappingKernelManager.cull_idle_timeout=300", "--ServerApp.shutdown_no_activity_timeout=300")
"""Should this process be killed, the gateway ends by itself."""


class Failed(Exception):
    """Why the demo cannot go on, in one message."""


@dataclass(frozen=True)
class Running:
    """A gateway that answers. ``command``: what a person would have typed."""

    url: str
    token: str
    command: str


@contextlib.contextmanager
def a_gateway(log: Path) -> Iterator[Running]:
    """Have a gateway with a free port, a token of its own and this process's Jupyter directories.

    It and its kernels are gone afterwards. Raises Failed if it does not answer.
    """
    data = Path(os.environ["JUPYTER_DATA_DIR"], "gateway")
    argv = [sys.executable, "-m", "elsewhere.cli", *SERVE, *UNUSED, f"--data-directory={data}"]
    with log.open("wb") as out:
        # A Ctrl-C is for this process, which then ends the gateway.
        process = subprocess.Popen(argv, stdout=out, stderr=out, start_new_session=True)
    try:
        url, token = _until_it_answers(process, log)
        yield Running(url, token, f"elsewhere {' '.join(SERVE)}")
    finally:
        _end(process)


def _until_it_answers(process: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(GatewayUnusable):
            target = find(None, None)
            Client(target).ask("GET", "api")
            return target.url, target.token
        time.sleep(LOOK)
    last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
    raise Failed("\n".join(["the gateway does not serve; the last lines of its log:", *last]))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it, whoever asks to hurry: it ends its kernels first."""
    before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        process.terminate()
        process.wait(END_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def execute(notebook: NotebookNode, kernel_name: str, gateway: Running, steps: Steps) -> None:
    """Execute all code cells on a new kernel, into the notebook. Raises Failed."""
    client = JupyterKernelClient(server_url=gateway.url, token=gateway.token)
    try:
        client.start(name=kernel_name)
    except requests.RequestException as error:
        raise Failed(f"the gateway did not start a kernel: {error}") from error
    ours = Client(find(gateway.url, gateway.token))
    _Execution(notebook, client, steps).run(ours)
    try:
        # The gateway hangs up then; the client's own way to hang up may take ten seconds.
        ours.ask("DELETE", "api", "kernels", str(client.id))
    except GatewayUnusable as error:
        raise Failed(f"the kernel was not ended: {error}") from error
    steps.tell("end", "the kernel, its agent and its job are gone")


class _Execution:
    """One notebook on one kernel. One thread waits for the cells' answers, one for the kernel's events."""

    def __init__(self, notebook: NotebookNode, client: JupyterKernelClient, steps: Steps) -> None:
        self._notebook = notebook
        self._client = client
        self._steps = steps
        self._failure = ""
        self._over = threading.Event()

    def run(self, gateway: Client) -> None:
        """Return when all cells are executed. Raises Failed when one fails, or the kernel."""
        for work in (lambda: self._watch(gateway), self._execute):
            threading.Thread(target=work, daemon=True).start()
        # The system may give a signal to any thread, and only a wait that ends hears of it.
        while not self._over.wait(LOOK):
            pass
        if self._failure:
            raise Failed(self._failure)

    def _fail(self, why: str) -> None:
        if not self._over.is_set():
            self._failure = why
            self._over.set()

    def _watch(self, gateway: Client) -> None:
        """Tell the kernel's steps; a kernel that is started again has lost what the cells made."""
        try:
            for event in gateway.events("api", "kernels", str(self._client.id), "events"):
                if event.name == "kernel":
                    self._hear(event.data)
        except GatewayUnusable as error:
            self._fail(str(error))

    def _hear(self, detail: dict[str, Any]) -> None:
        self._steps.tell_new(detail["steps"], _details(detail))
        if detail["execution_state"] in ("dead", "restarting"):
            self._fail(detail.get("reason") or "the kernel is dead")

    def _execute(self) -> None:
        try:
            for index, cell in enumerate(self._notebook.cells):
                if cell.cell_type == "code" and not self._execute_cell(index, cell):
                    return
        except (OSError, RuntimeError, TimeoutError) as error:
            self._fail(f"no answer from the kernel: {error}")
        self._over.set()

    def _execute_cell(self, index: int, cell: NotebookNode) -> bool:
        began = time.monotonic()
        ran = self._client.execute(cell.source, timeout=CELL_TIMEOUT)
        cell.outputs = [nbformat.from_dict(output) for output in ran["outputs"]]
        cell.execution_count = ran["execution_count"]
        if ran["status"] != "ok":
            self._fail(f"a cell failed:\n{_error(cell.outputs)}")
            return False
        took = time.monotonic() - began
        self._steps.tell(
            f"cell {cell.execution_count}", f"{took:.2f} s  {_title(self._notebook.cells, index)}"
        )
        return True


def _details(detail: dict[str, Any]) -> dict[str, str]:
    host = detail["host"]
    return {
        "asked": f"POST /api/kernels, of {detail['name']}",
        "submitted": f"job {detail['job_id']}",
        "running": f"on {host}" if host else "",
        "agent home": "the agent in the job has called the switchboard",
        "kernel ready": "the gateway talks to it, through the agent",
    }


def _error(outputs: list[Any]) -> str:
    for output in outputs:
        if output["output_type"] == "error":
            return "\n".join(output["traceback"]) or f"{output['ename']}: {output['evalue']}"
    return "the kernel gave no reason"


def _title(cells: list[Any], index: int) -> str:
    """Return the heading above a cell, or else its first line."""
    above = cells[index - 1]["source"] if index and cells[index - 1]["cell_type"] == "markdown" else ""
    text = next((line.strip("# ") for line in above.splitlines() if line.startswith("#")), "")
    return text or str(cells[index]["source"]).partition("\n")[0]
