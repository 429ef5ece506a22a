"""Housekeeping of a gateway with real kernels: idle ones are ended, and there are so many at most."""

from __future__ import annotations

import signal
import sys
from concurrent.futures import ThreadPoolExecutor

from events_kit import events_of
from gateway_kit import Gateway, gateway_of, listed, no_jobs
from site_kit import Site, until

SLEEPS = (sys.executable, "-c", "import time; time.sleep(600)", "{connection_file}")
BOOM = (sys.executable, "-c", "raise SystemExit(3)", "{connection_file}")
CULL = ("--GatewayMappingKernelManager.cull_idle_timeout=1", "--MappingKernelManager.cull_interval=1")
LIMIT = "--GatewayMappingKernelManager.max_kernels={}"


def test_idle_kernels_are_ended_and_busy_connected_and_pending_ones_are_not(site: Site) -> None:
    site.spec()
    site.spec("slow", SLEEPS)
    with gateway_of(site, *CULL) as gateway:
        connected, busy, pending = gateway.kernel(), gateway.kernel(), gateway.kernel("slow")
        with gateway.client(connected) as client, gateway.client(busy) as other:
            assert client.run("print(1)") == "1\n"
            other.send("import time\nwhile True: print(2); time.sleep(0.1)")
            gateway.until_state(busy, "busy")
        with gateway.client(connected) as client:
            for _ in range(2):  # the culler has looked at all of them each time
                idle = gateway.kernel()
                with events_of(gateway, idle) as events:
                    assert list(events)[-1][0] == "end"
            assert sorted(listed(gateway)) == sorted([connected, busy, pending])
            assert client.run("print(3)") == "3\n"
        until(lambda: connected not in listed(gateway), "it is culled once nobody is connected")
        assert gateway.ask("POST", f"/api/kernels/{busy}/interrupt")[0] == 204
        until(lambda: busy not in listed(gateway), "it is culled once it is idle")
        assert f"culling kernel {busy}" in gateway.log.read_text()
        assert gateway.ask("DELETE", f"/api/kernels/{pending}")[0] == 204
        no_jobs(site)


def test_kernels_of_an_earlier_life_are_culled_though_no_other_is_started(site: Site) -> None:
    site.spec()
    gateway = Gateway(site)
    gateway.start()
    kernel = gateway.kernel()
    gateway.until_state(kernel, "idle")
    assert gateway.stop(signal.SIGKILL) == -signal.SIGKILL
    gateway.start("--shutdown-kernels", *CULL)
    until(lambda: listed(gateway) == [], "it is culled")
    no_jobs(site)
    assert gateway.stop(signal.SIGTERM) == 0


def test_there_are_so_many_kernels_at_most_however_many_ask_at_once(site: Site) -> None:
    site.spec("slow", SLEEPS)
    with gateway_of(site, LIMIT.format(2)) as gateway, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(gateway.ask, "POST", "/api/kernels", {"name": "slow"}) for _ in range(8)]
        answers = [one.result() for one in asked]
        assert sorted(status for status, _ in answers) == [201] * 2 + [409] * 6
        refusal = next(answer for status, answer in answers if status == 409)
        assert "2 kernels at most" in str(refusal)
        first, second = listed(gateway)
        known = {"name": "slow", "kernel_id": first}
        assert gateway.ask("POST", "/api/kernels", known)[0] == 201, "it is one of the two"
        assert gateway.ask("DELETE", f"/api/kernels/{first}")[0] == 204
        third = gateway.kernel("slow")
        assert sorted(listed(gateway)) == sorted([second, third])


def test_a_dead_kernel_takes_no_place_and_gets_none_back_when_all_are_taken(site: Site) -> None:
    site.spec("slow", SLEEPS)
    site.spec("boom", BOOM)
    with gateway_of(site, LIMIT.format(1)) as gateway:
        dead = gateway.kernel("boom")
        gateway.until_state(dead, "dead")
        gateway.kernel("slow")
        assert gateway.ask("POST", f"/api/kernels/{dead}/restart")[0] == 409


def test_a_kernel_may_be_shut_down_at_any_moment_of_its_start(site: Site) -> None:
    """Before its launch has begun there is nothing to end, and then it must not begin."""
    site.spec("slow", SLEEPS)
    with gateway_of(site) as gateway:
        for _ in range(20):
            kernel = gateway.kernel("slow")
            assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
        no_jobs(site)
