"""Clients that are neither JupyterLab nor ours: nbclient over a gateway, and jupyter_kernel_client."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gateway_kit import Gateway, gateway_of, listed, no_jobs
from site_kit import PATIENCE, Site

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.ipynb"))

NO_TOKEN = ("--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True")

NBCLIENT = """
import sys

import nbformat
from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.gateway.managers import GatewayKernelManager
from nbclient import NotebookClient

class Patient(GatewayKernelManager):
    async def _async_is_alive(self):
        return await self.is_alive()

url, path = sys.argv[1:]
GatewayClient.instance(url=url)
notebook = nbformat.read(path, 4)
NotebookClient(notebook, kernel_manager_class=Patient, timeout=60).execute(kernel_name="away")
nbformat.write(notebook, path)
"""

KERNEL_CLIENT = """
import json
import sys
import threading
import time

from jupyter_kernel_client import JupyterKernelClient

url, token = sys.argv[1:]
told = {}
with_kernel = JupyterKernelClient(server_url=url, token=token)
with_kernel.start(name="away")

def text(code, **options):
    ran = with_kernel.execute(code, timeout=60, **options)
    return ran["status"], "".join(one.get("text", "") + one.get("ename", "") for one in ran["outputs"])

told["print"] = text("x = 6; print(x * 7)")
told["error"] = text("1 / 0")
told["many"] = text("for i in range(5000): print(i)")[1].count(chr(10))
told["variable"] = with_kernel.get_variable("x")
with_kernel.set_variable("y", {"a": [1, 2]})
told["set"] = text("print(y)")
told["stdin"] = text(
    "print(input('who? '))", allow_stdin=True, stdin_hook=lambda _: with_kernel._manager.client.input("you")
)
told["info"] = with_kernel.kernel_info["language_info"]["name"]
told["listed"] = [one["id"] == with_kernel.id for one in with_kernel.list_kernels()]
timer = threading.Timer(1, with_kernel.interrupt)
timer.start()
told["interrupt"] = text("import time\\nfor i in range(6000): time.sleep(0.01)")
timer.join()
with_kernel.restart(timeout=60)
told["restart"] = text("print('x' in dir())")
told["alive"] = with_kernel.is_alive()

second = JupyterKernelClient(server_url=url, token=token, kernel_id=with_kernel.id)
second.start()
told["second"] = second.execute("print(2)", timeout=60)["outputs"][0]["text"]
second.stop(shutdown_kernel=False)
with_kernel.stop(shutdown_kernel=True, shutdown_now=True)
print(json.dumps(told))
"""


def run(program: str, *arguments: str) -> str:
    argv = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_nbclient_executes_the_examples_through_a_gateway(site: Site, notebook: Path) -> None:
    """Its websocket sends no token (jupyter_server 2.21), so the gateway is one that asks for none.

    What ``Patient`` mends is jupyter_client's issue 1047: without it, a kernel that takes over a second
    to answer fails an assertion of the client.
    """
    site.spec(env={"MPLCONFIGDIR": tempfile.gettempdir() + "/elsewhere-test-matplotlib"})
    copy = site.root / notebook.name
    shutil.copy(notebook, copy)
    with gateway_of(site, *NO_TOKEN) as gateway:
        run(NBCLIENT, f"http://127.0.0.1:{gateway.port}", str(copy))
        assert listed(gateway) == []
        no_jobs(site)
    cells = [one for one in json.loads(copy.read_text())["cells"] if one["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    shown = json.dumps([cell["outputs"] for cell in cells])
    assert re.search(r"elsewhere-[0-9a-f]+-1-", shown)
    assert '"image/png"' in shown
    assert '"text/html"' in shown
    assert [text for text in ("1/4", "2/4", "3/4", "4/4") if text not in shown] == []


def test_an_independent_client_works_with_its_token(site: Site) -> None:
    site.spec()
    with gateway_of(site) as gateway:
        told = json.loads(run(KERNEL_CLIENT, f"http://127.0.0.1:{gateway.port}", gateway.token))
        assert listed(gateway) == []
        no_jobs(site)
        expect_no_token_in(gateway)
    assert told == {
        "print": ["ok", "42\n"],
        "error": ["error", "ZeroDivisionError"],
        "many": 5000,
        "variable": 6,
        "set": ["ok", "{'a': [1, 2]}\n"],
        "stdin": ["ok", "you\n"],
        "info": "python",
        "listed": [True],
        "interrupt": ["error", "KeyboardInterrupt"],
        "restart": ["ok", "False\n"],
        "alive": True,
        "second": "2\n",
    }


def expect_no_token_in(gateway: Gateway) -> None:
    """It is in the URL of this client's websocket; only the line that says how to connect may show it."""
    lines = [line for line in gateway.log.read_text().splitlines() if gateway.token in line]
    assert all("--GatewayClient.auth_token=" in line for line in lines), lines
