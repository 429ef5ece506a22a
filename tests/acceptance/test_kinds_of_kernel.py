"""Kernels of several kinds, through the stock KernelManager: all that a notebook does with them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from client_kit import Message, Ran, facts, kernel_of, run, started
from site_kit import IPYKERNEL, PATIENCE, Site, new_site, until

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Kind:
    """A kind of kernel, and how one says things in its language."""

    argv: tuple[str, ...]
    language: str
    transport: str
    rich: str
    ask: str
    busy: str
    remember: str
    recall: str
    interrupt_mode: str = "signal"
    survives_interrupt: bool = True


PYTHON: Any = {
    "language": "python",
    "rich": "from IPython.display import display, HTML; display(HTML('<b>rich</b>'))",
    "ask": "print('hello ' + input('who? '))",
    "busy": "print('busy', flush=True)\nwhile True: pass",
    "remember": "kept = 1",
    "recall": "print(kept)",
}
KINDS = {
    "ipykernel": Kind(argv=IPYKERNEL, transport="ipc", **PYTHON),
    "xeus-python": Kind(
        argv=(sys.executable, "-m", "xpython_launcher", "-f", "{connection_file}"),
        transport="tcp",
        survives_interrupt=False,  # nor under the stock provisioner: 0.19 exits
        **PYTHON,
    ),
    "deno": Kind(
        argv=(str(BIN / "deno"), "jupyter", "--kernel", "--conn", "{connection_file}"),
        language="typescript",
        transport="tcp",
        rich="await Deno.jupyter.display({'text/html': '<b>rich</b>'}, {raw: true})",
        ask="console.log('hello ' + prompt('who? '))",
        busy="console.log('busy'); while (true) {}",
        remember="globalThis.kept = 1",
        recall="console.log(kept)",
        interrupt_mode="message",
    ),
    "IRkernel": Kind(
        argv=("R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"),
        language="R",
        transport="tcp",
        rich="IRdisplay::display_html('<b>rich</b>')",
        ask="cat(paste('hello', readline('who? ')))",
        busy="cat('busy\\n'); flush.console(); while (TRUE) {}",
        remember="kept <- 1",
        recall="print(kept)",
    ),
}


@dataclass(frozen=True)
class Running:
    """A kernel of one kind, its client connected once and for all."""

    kind: Kind
    site: Site
    manager: KernelManager
    client: BlockingKernelClient

    def run(self, code: str, **kwargs: object) -> Ran:
        return run(self.client, code, **kwargs)  # type: ignore[arg-type]

    def refuses(self, code: str) -> bool:
        return self.run(code).status == "error"


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    if request.param == "IRkernel" and shutil.which("R") is None:
        pytest.skip("there is no R on this machine")
    kind = KINDS[request.param]
    with new_site() as site:
        spec = site.spec(
            "kind",
            kind.argv,
            language=kind.language,
            interrupt_mode=kind.interrupt_mode,
            env={"NO_COLOR": "1", "DENO_DIR": str(site.root / "deno")},
        )
        with started(spec) as (manager, client):
            yield Running(kind, site, manager, client)


def test_it_executes(running: Running) -> None:
    ran = running.run("1 + 1", complete=lambda ran: ran.value or ran.of("display_data"))
    assert ran.status == "ok"
    assert "2" in (ran.value or str(ran.of("display_data")))


def test_it_is_carried_by_an_agent_in_a_job_of_its_own(running: Running) -> None:
    (agent,) = running.site.agents()
    assert os.getsid(agent) == agent != os.getsid(0)
    assert len(running.site.job_processes("connection.json")) >= 1


def test_it_listens_where_no_other_user_can_read(running: Running) -> None:
    """ipc sockets in a private directory where the kernel can, else a random loopback address."""
    (connection,) = running.site.jobs.rglob("connection.json")
    assert f'"transport": "{running.kind.transport}"' in connection.read_text()
    assert connection.stat().st_mode & 0o777 == 0o600
    assert connection.parent.stat().st_mode & 0o777 == 0o700


def test_rich_output_arrives(running: Running) -> None:
    ran = running.run(running.kind.rich, complete=lambda ran: ran.of("display_data"))
    (shown,) = ran.of("display_data")
    assert "<b>rich</b>" in shown["content"]["data"]["text/html"]


def test_it_asks_and_is_answered(running: Running) -> None:
    running.run(running.kind.ask, answer="world", complete=lambda ran: "hello world" in ran.text)


def test_an_error_is_told(running: Running) -> None:
    ran = running.run("surely_nobody_defined_this", complete=lambda ran: ran.of("error"))
    assert ran.status == "error"


def test_a_busy_loop_is_interrupted_and_the_kernel_goes_on(running: Running) -> None:
    if not running.kind.survives_interrupt:
        pytest.skip("this kernel does not survive an interrupt, whoever runs it")
    running.run(running.kind.remember)

    def interrupt(message: Message) -> None:
        if message["msg_type"] == "stream":
            running.manager.interrupt_kernel()

    assert running.run(running.kind.busy, heard=interrupt).status != "ok"
    running.run(running.kind.recall, complete=lambda ran: "1" in ran.text)


def test_a_kernel_that_an_interrupt_ends_is_told_so_and_can_be_restarted(running: Running) -> None:
    if running.kind.survives_interrupt:
        pytest.skip("this kernel survives an interrupt")
    before = facts(running.manager)
    running.client.execute(running.kind.busy)
    while running.client.get_iopub_msg(timeout=PATIENCE)["msg_type"] != "stream":
        pass
    running.manager.interrupt_kernel()
    until(lambda: not running.manager.is_alive(), "the kernel ends")
    assert "the kernel exited" in kernel_of(running.manager).reason
    running.manager.restart_kernel()
    running.client.wait_for_ready(timeout=PATIENCE)
    assert facts(running.manager) == before


@pytest.mark.parametrize("now", [False, True], ids=["graceful", "now"])
def test_a_restart_keeps_job_endpoints_and_clients(running: Running, now: bool) -> None:
    running.run(running.kind.remember)
    before, (agent,) = facts(running.manager), running.site.agents()
    running.manager.restart_kernel(now=now)
    running.client.wait_for_ready(timeout=PATIENCE)
    assert facts(running.manager) == before
    assert running.site.agents() == [agent]
    assert running.refuses(running.kind.recall), "the new kernel knows what was said to the old one"
    assert kernel_of(running.manager).launch_number == 1
