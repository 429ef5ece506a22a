"""JupyterLab's own server as the gateway's client, driven as the browser drives it."""

from __future__ import annotations

import ast
import inspect
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_server.gateway import connections, gateway_client, managers

from gateway_kit import Gateway, gateway_of, listed
from lab_kit import Gate, LabServer, lab_of
from site_kit import Site, until
from websocket_kit import front_end, kind_of

BOOM = (sys.executable, "-c", "print('boom'); raise SystemExit(3)", "{connection_file}")
LOGO = b"\x89PNG\r\n\x1a\n of a kernel"


@pytest.fixture
def gateway(site: Site) -> Iterator[Gateway]:
    site.spec()
    with gateway_of(site, "--log-level=DEBUG") as gateway:
        yield gateway


@pytest.fixture
def lab(site: Site, gateway: Gateway) -> Iterator[LabServer]:
    with lab_of(site, gateway) as lab:
        yield lab


def test_two_notebooks_from_start_to_end(lab: LabServer, gateway: Gateway) -> None:
    (one, first), (_, second) = lab.open("one.ipynb"), lab.open("two.ipynb")
    assert {first, second} == set(listed(gateway)) == set(listed(lab))
    with front_end(lab, first) as client, front_end(lab, second) as other:
        assert client.run("x = 1; print(x)") == "1\n"
        assert other.run("x = 2; print(x)") == "2\n"
        assert client.run("print(x)") == "1\n"
        assert lab.ask("POST", f"/api/kernels/{first}/restart", {})[0] == 200
    with front_end(lab, first) as client, front_end(lab, second) as other:
        assert client.run("print('x' in dir())") == "False\n"
        assert other.run("print(x)") == "2\n"
    assert lab.ask("DELETE", f"/api/sessions/{one}")[0] == 204
    assert listed(gateway) == listed(lab) == [second]
    assert lab.ask("DELETE", f"/api/kernels/{second}")[0] == 204
    assert lab.ask("GET", "/api/sessions") == (200, [])
    assert listed(gateway) == []


def test_a_busy_cell_is_interrupted(lab: LabServer) -> None:
    _, kernel = lab.open("a.ipynb")
    with front_end(lab, kernel) as client:
        asked = client.execute("import time\nfor i in range(10**6): time.sleep(0.01)")
        client.until(lambda message: kind_of(message) == "execute_input", "the cell runs")
        until(lambda: lab.ask("GET", "/api/kernels")[1][0]["execution_state"] == "busy", "the poll sees it")
        assert lab.ask("POST", f"/api/kernels/{kernel}/interrupt", {})[0] == 204
        assert client.reply(asked)["content"]["ename"] == "KeyboardInterrupt"
        assert client.run("print('on')") == "on\n"


def test_a_restart_is_seen_on_the_websocket_that_is_open(lab: LabServer) -> None:
    """JupyterLab opens a new one after a restart; a console that shares the kernel does not."""
    _, kernel = lab.open("a.ipynb")
    with front_end(lab, kernel) as client:
        client.run("x = 1")
        client.heard.clear()
        assert lab.ask("POST", f"/api/kernels/{kernel}/restart", {})[0] == 200
        assert client.run("print('x' in dir())") == "False\n"
        assert "starting" in client.states()


def test_a_session_is_renamed_and_its_kernel_changed(lab: LabServer, site: Site, gateway: Gateway) -> None:
    site.spec("other")
    session, kernel = lab.open("a.ipynb")
    status, model = lab.ask("PATCH", f"/api/sessions/{session}", {"path": "b.ipynb", "name": "b.ipynb"})
    assert (status, model["path"], model["kernel"]["id"]) == (200, "b.ipynb", kernel)
    status, model = lab.ask("PATCH", f"/api/sessions/{session}", {"kernel": {"name": "other"}})
    assert (status, model["path"], model["kernel"]["name"]) == (200, "b.ipynb", "other")
    assert listed(gateway) == [model["kernel"]["id"]]
    with front_end(lab, model["kernel"]["id"]) as client:
        assert client.run("print(1)") == "1\n"


def test_a_notebook_waits_for_its_pending_kernel(lab: LabServer, site: Site) -> None:
    gate = Gate(site.root / "gate")
    site.spec("slow", gate.argv)
    session, kernel = lab.open("a.ipynb", "slow")
    with front_end(lab, kernel) as client:
        asked = client.execute("print('at last')")
        assert lab.ask("GET", "/api/kernels")[1][0]["execution_state"] == "starting"
        assert lab.ask("GET", "/api/sessions")[1][0]["id"] == session
        assert lab.ask("POST", f"/api/kernels/{kernel}/interrupt", {})[0] == 409
        gate.open()
        client.reply(asked)
        assert client.output(asked) == "at last\n"


def test_a_pending_kernel_is_shut_down_by_closing_its_notebook(lab: LabServer, site: Site) -> None:
    site.spec("slow", Gate(site.root / "never").argv)
    session, _ = lab.open("a.ipynb", "slow")
    until(site.agents, "the job runs")
    assert lab.ask("DELETE", f"/api/sessions/{session}")[0] == 204
    assert listed(lab) == []
    until(lambda: not site.job_processes(), "its job is gone")


def test_a_notebook_shows_why_its_kernel_did_not_start(lab: LabServer, site: Site) -> None:
    site.spec("boom", BOOM)
    session, kernel = lab.open("a.ipynb", "boom")
    with front_end(lab, kernel) as client:
        told = client.run("1 + 1")
        assert "exited with code 3" in told
        assert "boom" in told
        assert client.states()[-2:] == ["busy", "idle"]
        assert "dead" in client.states()
    (model,) = lab.ask("GET", "/api/kernels")[1]
    assert (model["execution_state"], "exited with code 3" in model["reason"]) == ("dead", True)
    assert lab.ask("DELETE", f"/api/sessions/{session}")[0] == 204
    assert listed(lab) == []


def test_a_kernel_that_dies_is_restarted_and_the_notebook_told(lab: LabServer) -> None:
    _, kernel = lab.open("a.ipynb")
    with front_end(lab, kernel) as client:
        client.run("x = 1")
        client.execute("import os; os._exit(7)")
        client.until_told("restarting")
        assert client.run("print('x' in dir())") == "False\n"


def test_a_kernel_that_is_gone_from_the_gateway_is_gone_from_the_lab(
    lab: LabServer, gateway: Gateway
) -> None:
    _, kernel = lab.open("a.ipynb")
    assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
    assert lab.ask("GET", "/api/kernels") == (200, [])
    assert lab.ask("GET", "/api/sessions") == (200, [])


def test_a_notebook_goes_on_when_the_gateway_was_killed(lab: LabServer, gateway: Gateway) -> None:
    session, kernel = lab.open("a.ipynb")
    with front_end(lab, kernel) as client:
        client.run("x = 41")
        assert gateway.stop(signal.SIGKILL) == -signal.SIGKILL
        status, _ = lab.ask("GET", "/api/kernels")
        assert status in (500, 503, 599)
        gateway.start("--shutdown-kernels")
        assert listed(lab) == [kernel]
        assert [one["id"] for one in lab.ask("GET", "/api/sessions")[1]] == [session]
        until(lambda: gateway.detail(kernel)["connections"] == 1, "the lab has come back by itself")
        assert client.run("x += 1; print(x)") == "42\n"
        assert lab.ask("POST", f"/api/kernels/{kernel}/restart", {})[0] == 200
        assert client.run("print('x' in dir())") == "False\n"
    assert lab.ask("DELETE", f"/api/sessions/{session}")[0] == 204
    assert listed(gateway) == []


def test_a_cell_that_runs_ends_when_the_gateway_was_killed_meanwhile(
    lab: LabServer, gateway: Gateway, site: Site
) -> None:
    gate = site.root / "gate"
    _, kernel = lab.open("a.ipynb")
    with front_end(lab, kernel) as client:
        code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)\nprint('done')"
        asked = client.execute(code)
        client.until(lambda message: kind_of(message) == "execute_input", "the cell runs")
        assert gateway.stop(signal.SIGKILL) == -signal.SIGKILL
        gateway.start("--shutdown-kernels")
        until(lambda: gateway.detail(kernel)["connections"] == 1, "the lab has come back by itself")
        assert gateway.detail(kernel)["execution_state"] in ("busy", "starting")
        gate.touch()
        client.reply(asked)
        assert client.output(asked) == "done\n"


# ---- every request that jupyter_server's gateway client can make

REQUESTS = {
    ("GatewayMappingKernelManager.list_kernels", "GET"): r"/api/kernels",
    ("GatewayKernelSpecManager.list_kernel_specs", "GET"): r"/api/kernelspecs",
    ("GatewayKernelSpecManager.get_kernel_spec", "GET"): r"/api/kernelspecs/away",
    ("GatewayKernelSpecManager.get_kernel_spec_resource", "GET"): r"/kernelspecs/away/logo-64x64\.png",
    ("GatewayKernelManager.refresh_model", "GET"): r"/api/kernels/[\w-]+",
    ("GatewayKernelManager.start_kernel", "POST"): r"/api/kernels",
    ("GatewayKernelManager.shutdown_kernel", "DELETE"): r"/api/kernels/[\w-]+",
    ("GatewayKernelManager.restart_kernel", "POST"): r"/api/kernels/[\w-]+/restart",
    ("GatewayKernelManager.interrupt_kernel", "POST"): r"/api/kernels/[\w-]+/interrupt",
}
SOCKETS = {"GatewayWebSocketConnection.connect", "GatewayKernelClient.start_channels"}


def test_these_are_all_the_requests_of_the_stock_client() -> None:
    """A release that brings another one has this fail, so that it gets a test too."""
    found, sockets = set(), set()
    for module in (managers, connections, gateway_client):
        for owner, call in calls(ast.parse(inspect.getsource(module))):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name == "gateway_request":
                (method,) = (one.value for one in call.keywords if one.arg == "method")
                assert isinstance(method, ast.Constant)
                found.add((owner, method.value))
            elif name in ("websocket_connect", "create_connection"):
                sockets.add(owner)
    assert found == set(REQUESTS)
    assert sockets == SOCKETS


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for owner in (one for one in tree.body if isinstance(one, ast.ClassDef)):
        for method in owner.body:
            for node in ast.walk(method):
                if isinstance(node, ast.Call) and isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{owner.name}.{method.name}", node


def test_every_request_of_the_stock_client_is_answered(lab: LabServer, gateway: Gateway, site: Site) -> None:
    (site.root / "share" / "kernels" / "away" / "logo-64x64.png").write_bytes(LOGO)
    _, kernel = lab.open("a.ipynb")
    with front_end(lab, kernel) as client:
        client.run("1")
    assert lab.ask("GET", "/api/kernels")[0] == 200
    status, specs = lab.ask("GET", "/api/kernelspecs")
    assert (status, list(specs["kernelspecs"])) == (200, ["away"])
    logo = specs["kernelspecs"]["away"]["resources"]["logo-64x64"]
    assert lab.ask("GET", logo) == (200, LOGO.decode(errors="replace"))
    assert lab.ask("HEAD", logo)[0] == 200
    status, spec = lab.ask("GET", "/api/kernelspecs/away")
    assert (status, spec["name"], spec["spec"]["display_name"]) == (200, "away", "away")
    assert lab.ask("GET", "/api/kernelspecs/no-such")[0] == 404
    assert lab.ask("POST", f"/api/kernels/{kernel}/interrupt", {})[0] == 204
    assert lab.ask("POST", f"/api/kernels/{kernel}/restart", {})[0] == 200
    model = {"path": "b.ipynb", "name": "b.ipynb", "type": "notebook", "kernel": {"id": kernel}}
    assert lab.ask("POST", "/api/sessions", model)[1]["kernel"]["id"] == kernel
    other = lab.kernel()
    assert gateway.ask("DELETE", f"/api/kernels/{other}")[0] == 204
    assert lab.ask("GET", "/api/kernels")[0] == 200  # asks for the one that is missing
    assert lab.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
    answered = set(re.findall(r"\b(2\d\d|101|404) (\w+) (\S+)", gateway.log.read_text()))
    for (_, method), path in REQUESTS.items():
        assert any(one[1] == method and re.fullmatch(path, one[2]) for one in answered), (method, path)
    assert any(one[:2] == ("101", "GET") and "/channels?session_id=" in one[2] for one in answered)


def test_a_lab_of_a_named_user_gets_its_kernelspecs(site: Site, gateway: Gateway) -> None:
    """Stock: ``/api/kernelspecs?user=x``, and ``/api/kernelspecs?user=x/name`` for one of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNEL_USERNAME", "ada@example")
        with lab_of(site, gateway) as lab:
            status, specs = lab.ask("GET", "/api/kernelspecs")
            assert (status, list(specs["kernelspecs"])) == (200, ["away"])
            status, spec = lab.ask("GET", "/api/kernelspecs/away")
            assert (status, spec["name"]) == (200, "away")
            assert lab.ask("GET", "/api/kernelspecs/no-such")[0] == 404
            _, kernel = lab.open("a.ipynb")
            with front_end(lab, kernel) as client:
                code = "import os; print(os.environ['KERNEL_USERNAME'])"
                assert client.run(code) == "ada@example\n"


def test_what_the_notebook_says_of_itself_reaches_the_kernel(lab: LabServer, site: Site) -> None:
    directory = Path(site.work, "sub")
    directory.mkdir()
    _, kernel = lab.open("sub/a.ipynb")
    with front_end(lab, kernel) as client:
        code = "import os; print(os.environ['KERNEL_WORKING_DIR'], os.environ.get('JPY_PARENT_PID'))"
        assert client.run(code) == f"{directory} None\n"
