"""Failed launches through REST: each says why, can be deleted or repaired, and stops no server."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from gateway_kit import Gateway, gateway_of, listed, no_jobs
from lab_kit import Gate
from launch_failures import FAILURES, Failure
from site_kit import IPYKERNEL, Site, new_site, until
from websocket_kit import front_end

NEVER = (sys.executable, "-c", "import time; time.sleep(600)", "{connection_file}")


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Site, Gateway]]:
    """One gateway for the tests that leave nothing behind."""
    with new_site() as site, gateway_of(site) as gateway:
        yield site, gateway


@pytest.mark.parametrize("failure", FAILURES.values(), ids=[*FAILURES])
def test_a_failed_launch_tells_why_everywhere(place: tuple[Site, Gateway], failure: Failure) -> None:
    site, gateway = place
    name = site.spec(argv=failure.argv, **failure.options)
    session = {"path": "a.ipynb", "type": "notebook", "kernel": {"name": name}}
    status, model = gateway.ask("POST", "/api/sessions", session)
    assert status == 201
    kernel = model["kernel"]["id"]
    with front_end(gateway, kernel) as early:
        told = [early.run("1 + 1")]
        assert early.states()[-3:] == ["dead", "busy", "idle"]
    with front_end(gateway, kernel) as late:
        told.append(late.run("1 + 1"))
    told.append(gateway.until_state(kernel, "dead")["reason"])
    told.append(gateway.ask("GET", "/api/kernels")[1][0]["reason"])
    told.append(gateway.ask("GET", f"/api/sessions/{model['id']}")[1]["kernel"]["reason"])
    told.append(str(gateway.ask("POST", f"/api/kernels/{kernel}/interrupt")[1]["message"]))
    for text in told:
        assert failure.reason in text
        assert f"({failure.step})" in text
        assert failure.log in text
    assert "Traceback" not in gateway.log.read_text()
    no_jobs(site)
    start_again_without_the_cause(site, gateway, kernel)
    assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
    assert (listed(gateway), gateway.ask("GET", "/api/sessions")[1]) == ([], [])
    no_jobs(site)


def test_a_stanza_that_is_wrong_is_told_to_the_notebook_too(place: tuple[Site, Gateway]) -> None:
    """It is found wrong when the kernel is started, not when its kernelspec is listed."""
    site, gateway = place
    site.spec("lost", config={"cluster": "nowhere"})
    kernel = gateway.kernel("lost")
    with front_end(gateway, kernel) as early:
        told = [early.run("1 + 1")]
    gateway.until_state(kernel, "dead")
    with front_end(gateway, kernel) as late:
        told.append(late.run("1 + 1"))
    for text in told:
        assert "no cluster is called `nowhere`" in text
    assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204


def start_again_without_the_cause(site: Site, gateway: Gateway, kernel: str) -> None:
    """A restart fails with the same reason until a person has mended the cause."""
    with front_end(gateway, kernel) as client:
        assert gateway.ask("POST", f"/api/kernels/{kernel}/restart")[0] == 200
        assert "did not start" in client.run("1 + 1")
    site.spec()
    mended = gateway.kernel()
    with front_end(gateway, mended) as client:
        assert client.run("print(1 + 1)") == "2\n"
    assert gateway.ask("DELETE", f"/api/kernels/{mended}")[0] == 204


@pytest.mark.parametrize("option", ["--shutdown-kernels", ""])
def test_the_server_stops_with_failed_pending_and_running_kernels(site: Site, option: str) -> None:
    site.spec()
    site.spec("fails", ("no-such-kernel",))
    site.spec("slow", NEVER)
    gateway = Gateway(site)
    gateway.start(*filter(None, [option]))
    kernels = [gateway.kernel(name) for name in ("away", "fails", "slow")]
    gateway.until_state(kernels[0], "idle")
    gateway.until_state(kernels[1], "dead")
    until(lambda: gateway.detail(kernels[2])["host"], "its job runs")
    assert gateway.stop(signal.SIGTERM) == 0
    assert "Traceback" not in gateway.log.read_text()
    if not option:
        assert len(site.agents()) == 2
        gateway.start("--shutdown-kernels")
        assert set(listed(gateway)) >= {kernels[0], kernels[2]}
        assert gateway.stop(signal.SIGTERM) == 0
    site.expect_nothing_left()


def test_a_restart_whose_launch_fails_tells_dead_to_who_listens(site: Site) -> None:
    """Nobody has asked anything of it, so only the message tells."""
    program = site.root / "kernel"
    program.write_text(f'#!/bin/sh\nexec "{IPYKERNEL[0]}" "$@"\n')
    program.chmod(0o700)
    site.spec(argv=(str(program), *IPYKERNEL[1:]))
    with gateway_of(site) as gateway:
        kernel = gateway.kernel()
        with front_end(gateway, kernel) as client:
            client.run("1")
            program.unlink()
            assert gateway.ask("POST", f"/api/kernels/{kernel}/restart")[0] == 200
            client.until_told("dead")
        assert "there is no program" in gateway.until_state(kernel, "dead")["reason"]
        no_jobs(site)
        program.write_text(f'#!/bin/sh\nexec "{IPYKERNEL[0]}" "$@"\n')
        program.chmod(0o700)
        assert gateway.ask("POST", f"/api/kernels/{kernel}/restart")[0] == 200
        with front_end(gateway, kernel) as client:
            assert client.run("print(1)") == "1\n"


def test_an_automatic_restart_that_fails_tells_dead_too(site: Site) -> None:
    program = site.root / "kernel"
    program.write_text(f'#!/bin/sh\nexec "{IPYKERNEL[0]}" "$@"\n')
    program.chmod(0o700)
    site.spec(argv=(str(program), *IPYKERNEL[1:]))
    with gateway_of(site) as gateway:
        kernel = gateway.kernel()
        with front_end(gateway, kernel) as client:
            client.run("1")
            program.unlink()
            client.execute("import os; os._exit(1)")
            client.until_told("dead")
            assert client.states()[-2:] == ["restarting", "dead"]
        assert "there is no program" in gateway.detail(kernel)["reason"]
        assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
        no_jobs(site)


def test_a_kernel_that_goes_on_dying_is_dead_in_the_end(site: Site) -> None:
    site.spec()
    options = ["--GatewayRestarter.restart_limit=2", "--GatewayRestarter.stable_start_time=1000"]
    with gateway_of(site, *options) as gateway:
        kernel = gateway.kernel()
        with front_end(gateway, kernel) as client:
            for told in ("restarting", "restarting", "dead"):
                client.execute("import os; os._exit(9)")
                client.until_told(told)
        assert gateway.until_state(kernel, "dead")["reason"] == "the kernel exited with code 9"
        assert gateway.ask("POST", f"/api/kernels/{kernel}/restart")[0] == 200
        with front_end(gateway, kernel) as client:
            assert client.run("print(1)") == "1\n"


def test_a_kernel_whose_job_is_lost_is_dead_and_queued_again_only_by_hand(site: Site) -> None:
    site.spec()
    with gateway_of(site) as gateway:
        kernel = gateway.kernel()
        with front_end(gateway, kernel) as client:
            client.run("1")
            (agent,) = site.agents()
            os.kill(agent, signal.SIGKILL)
            client.until_told("dead")
            assert "restarting" not in client.states()
        detail = gateway.until_state(kernel, "dead")
        assert (detail["launch"], "job" in detail["reason"]) == (1, True)
        assert gateway.ask("POST", f"/api/kernels/{kernel}/restart")[0] == 200
        with front_end(gateway, kernel) as client:
            assert client.run("print(1)") == "1\n"
        assert gateway.detail(kernel)["launch"] == 2


def test_a_pending_kernel_that_is_deleted_tells_who_waits(site: Site) -> None:
    gate = Gate(site.root / "never")
    site.spec("slow", gate.argv)
    with gateway_of(site) as gateway:
        kernel = gateway.kernel("slow")
        with front_end(gateway, kernel) as client:
            asked = client.execute("1 + 1")
            until(site.agents, "the job runs")
            assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
            assert client.reply(asked)["content"]["status"] == "error"
        no_jobs(site)
