"""Hundreds of kernels at once: none fails, each answers, and nothing is left of them."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway_kit import Gateway, gateway_of, listed, no_jobs
from site_kit import STUB, Site, until

MANY = 200
CONNECT_AT_ONCE = 24
LONG = 300.0
"""Seconds of patience: two hundred interpreters start, twice, on a machine that may have two cores."""


def all_ready(gateway: Gateway) -> bool:
    states = {model["execution_state"] for model in gateway.ask("GET", "/api/kernels")[1]}
    assert states <= {"starting", "idle", "busy"}, gateway.ask("GET", "/api/kernels")[1]
    return "starting" not in states


@pytest.mark.timeout(900)
def test_two_hundred_kernels_start_answer_and_go(site: Site) -> None:
    site.spec("stub", STUB, start_timeout=LONG)
    with gateway_of(site) as gateway, ThreadPoolExecutor(50) as threads:
        kernels = list(threads.map(lambda _: gateway.kernel("stub"), range(MANY)))
        assert len(set(kernels)) == MANY
        until(lambda: all_ready(gateway), "all are ready", LONG)
        assert sorted(listed(gateway)) == sorted(kernels)

        def answers(kernel: str) -> str:
            with gateway.client(kernel) as client:
                return client.run(f"echo {kernel}")

        assert list(threads.map(answers, kernels)) == kernels
        ends = threads.map(lambda kernel: gateway.ask("DELETE", f"/api/kernels/{kernel}")[0], kernels)
        assert set(ends) == {204}
        assert listed(gateway) == []
        no_jobs(site)
        assert "Traceback" not in gateway.log.read_text()


def test_front_ends_that_connect_at_once_are_all_served(site: Site) -> None:
    """While the starts of most of them wait for their turn."""
    site.spec("stub", STUB)

    def served(gateway: Gateway) -> str:
        with gateway.client(gateway.kernel("stub")) as client:
            return client.run("print 2")

    with gateway_of(site) as gateway, ThreadPoolExecutor(CONNECT_AT_ONCE) as threads:
        assert set(threads.map(served, [gateway] * CONNECT_AT_ONCE)) == {"0\n1\n"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", ["parcel.pyz", "stub_kernel"])
def test_many_agents_or_kernels_are_killed_while_they_start(site: Site, victim: str) -> None:
    site.spec("stub", STUB, start_timeout=LONG)
    with gateway_of(site) as gateway, ThreadPoolExecutor(20) as threads:
        kernels = list(threads.map(lambda _: gateway.kernel("stub"), range(40)))
        killed: set[int] = set()
        while len(killed) < 15:
            for pid in set(site.job_processes(victim)) - killed:
                kill(pid)
                killed.add(pid)
        until(
            lambda: not any(one["execution_state"] == "starting" for one in models(gateway)),
            "all settle",
            LONG,
        )
        for model in models(gateway):
            assert model["execution_state"] in ("idle", "busy", "dead", "restarting", "unknown")
            assert model["execution_state"] != "dead" or "SIGKILL" in model["reason"], model
        assert set(threads.map(lambda one: gateway.ask("DELETE", f"/api/kernels/{one}")[0], kernels)) == {204}
        no_jobs(site)


@pytest.mark.timeout(300)
def test_a_gateway_is_stopped_while_many_start(site: Site) -> None:
    site.spec("stub", STUB)
    gateway = Gateway(site)
    gateway.start("--shutdown-kernels")
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(lambda _: gateway.kernel("stub"), range(30)))
    assert gateway.stop(signal.SIGTERM) == 0, gateway.log.read_text()
    no_jobs(site)


def models(gateway: Gateway) -> list[dict[str, str]]:
    """All kernels, as they are listed."""
    found: list[dict[str, str]] = gateway.ask("GET", "/api/kernels")[1]
    return found


def kill(pid: int) -> None:
    """Kill a process, if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
