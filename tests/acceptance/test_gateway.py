"""The gateway with real kernels: pending is normal, and so is its death."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest

from gateway_kit import PROGRAM, SERVE, Gateway, gateway_of, ledger_of, listed, no_jobs
from site_kit import Site, until

SLEEPS = (sys.executable, "-c", "import time; time.sleep(600)", "{connection_file}")
BOOM = (sys.executable, "-c", "print('boom'); raise SystemExit(3)", "{connection_file}")


def test_a_start_is_answered_at_once_and_messages_wait_for_the_kernel(site: Site) -> None:
    site.spec()
    with gateway_of(site) as gateway:
        kernel = gateway.kernel(env={"KERNEL_TEAM": "a $(b)", "SECRET": "x"})
        with gateway.client(kernel) as client:
            code = "import os; print(os.environ['KERNEL_TEAM'], os.environ.get('SECRET'))"
            assert client.run(code) == "a $(b) None\n"
        detail = gateway.until_state(kernel, "idle")
        assert detail["launch"] == detail["start"] == 1
        assert detail["connected"]
        assert next(iter(detail["steps"])) == "asked"
        assert "kernel ready" in detail["steps"]
        assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
        assert listed(gateway) == []
        no_jobs(site)


def test_a_killed_gateway_finds_its_kernels_and_sessions_again(site: Site) -> None:
    site.spec()
    gateway = Gateway(site)
    gateway.start()
    kernel = gateway.kernel()
    with gateway.client(kernel) as client:
        client.run("x = 41")
    session = {"path": "a.ipynb", "name": "a.ipynb", "type": "notebook", "kernel": {"id": kernel}}
    assert gateway.ask("POST", "/api/sessions", session)[0] == 201
    job = gateway.detail(kernel)["job_id"]
    token = gateway.token
    assert gateway.stop(signal.SIGKILL) == -signal.SIGKILL
    gateway.start("--shutdown-kernels")
    assert gateway.token == token
    assert listed(gateway) == [kernel]
    with gateway.client(kernel) as client:
        assert client.run("x += 1; print(x)") == "42\n"
    assert gateway.detail(kernel)["job_id"] == job
    assert [one["kernel"]["id"] for one in gateway.ask("GET", "/api/sessions")[1]] == [kernel]
    assert gateway.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("terminal", [False, True], ids=["no terminal", "terminal"])
def test_its_end_leaves_the_kernels_and_says_how_to_end_them(
    site: Site, signum: signal.Signals, terminal: bool
) -> None:
    """The stock server asks at a terminal, and without one dies of Ctrl-C before it tidies up."""
    site.spec()
    gateway = Gateway(site)
    ours, its = os.openpty()
    try:
        gateway.start(stdin=its if terminal else subprocess.DEVNULL)
        kernel = gateway.kernel()
        gateway.until_state(kernel, "idle")
        assert gateway.stop(signum) == 0
    finally:
        os.close(ours)
        os.close(its)
    assert "Traceback" not in gateway.log.read_text()
    assert "1 kernel(s) run on" in gateway.log.read_text()
    assert "--shutdown-kernels" in gateway.log.read_text()
    assert len(site.agents()) == 1
    gateway.start("--shutdown-kernels")
    assert listed(gateway) == [kernel]
    assert gateway.stop(signal.SIGTERM) == 0


def test_a_restart_is_answered_at_once_and_keeps_the_job(site: Site) -> None:
    site.spec()
    with gateway_of(site) as gateway:
        kernel = gateway.kernel()
        with gateway.client(kernel) as client:
            client.run("x = 1")
        before = gateway.detail(kernel)
        status, model = gateway.ask("POST", f"/api/kernels/{kernel}/restart")
        assert (status, model["execution_state"]) == (200, "restarting")
        with gateway.client(kernel) as client:
            assert client.run("print('x' in dir())") == "False\n"
        after = gateway.detail(kernel)
        assert (after["job_id"], after["launch"], after["start"]) == (before["job_id"], 1, 2)


def test_a_failed_launch_is_told_to_rest_and_to_the_notebook_and_can_be_deleted(site: Site) -> None:
    site.spec("boom", BOOM)
    with gateway_of(site) as gateway:
        kernel = gateway.kernel("boom")
        with gateway.client(kernel) as client:
            told = client.run("1 + 1")
        assert "exited with code 3" in told
        assert "boom" in told
        assert "exited with code 3" in gateway.detail(kernel)["reason"]
        status, answer = gateway.ask("POST", f"/api/kernels/{kernel}/interrupt")
        assert status == 409
        assert "exited with code 3" in str(answer)
        assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
        assert listed(gateway) == []


def test_a_kernel_that_is_still_starting_can_be_deleted(site: Site) -> None:
    site.spec("slow", SLEEPS)
    with gateway_of(site) as gateway:
        kernel = gateway.kernel("slow")
        until(site.agents, "the job runs")
        assert gateway.ask("POST", f"/api/kernels/{kernel}/interrupt")[0] == 409
        assert gateway.ask("POST", f"/api/kernels/{kernel}/restart")[0] == 409
        assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
        assert listed(gateway) == []
        no_jobs(site)


def test_wrong_requests_are_refused_with_a_reason(site: Site) -> None:
    site.spec()
    with gateway_of(site, "--GatewayMappingKernelManager.max_kernels=1") as gateway:
        assert gateway.ask("GET", "/api/kernels", token="wrong")[0] == 403
        for body, word in (
            ({"name": "nope"}, "nope"),
            ({"name": 7}, "name"),
            ({"env": {"KERNEL_X": 1}}, "env"),
            ([1], "object"),
        ):
            status, answer = gateway.ask("POST", "/api/kernels", body)
            assert (status, word in str(answer)) == (400, True), answer
            assert "Traceback" not in str(answer)
        assert gateway.ask("GET", "/api/kernels/0-0-0-0-0")[0] == 404
        gateway.kernel()
        assert gateway.ask("POST", "/api/kernels", {"name": "away"})[0] == 409
        assert gateway.ask("GET", "/api/contents")[0] == 404


def test_a_second_gateway_on_the_same_ledger_is_refused(site: Site) -> None:
    with gateway_of(site) as gateway:
        argv = [*SERVE, f"--data-directory={gateway.data}"]
        second = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert "another gateway is using" in second.stderr
        assert "Traceback" not in second.stderr
        for path in (gateway.data, ledger_of(gateway), gateway.data / "token"):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_a_taken_port_is_an_error_and_not_another_port(site: Site) -> None:
    with gateway_of(site) as gateway:
        argv = [*SERVE, f"--port={gateway.port}", f"--data-directory={site.root / 'other'}"]
        second = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert str(gateway.port) in second.stderr


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_the_command_explains_itself(word: str) -> None:
    argv = [PROGRAM, "serve", word]
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "elsewhere" in shown or shown[0].isdigit()
