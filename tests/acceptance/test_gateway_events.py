"""What the gateway tells of one kernel: its detail, and the same as events."""

from __future__ import annotations

import re
import signal
import sys

from elsewhere.gateway.detail import KernelDetail
from events_kit import events_of
from gateway_kit import Gateway, gateway_of
from site_kit import Site, until

SLEEPS = (sys.executable, "-c", "import time; time.sleep(600)", "{connection_file}")
BOOM = (sys.executable, "-c", "print('boom'); raise SystemExit(3)", "{connection_file}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
WAY = ("asked", "queued", "running", "starting", "idle")
STEPS = ["asked", "submitted", "running", "agent home", "kernel ready"]


def test_a_kernels_detail_says_where_it_is_and_how_it_came_there(site: Site) -> None:
    site.spec()
    with gateway_of(site) as gateway:
        kernel = gateway.kernel()
        gateway.until_state(kernel, "idle")
        detail = gateway.detail(kernel)
        assert detail["state"] == "idle"
        assert detail["status"] == "kernel ready"
        assert detail["backend"] == "local"
        assert detail["cluster"].startswith("local")
        assert detail["host"]
        assert detail["job_id"]
        assert (detail["launch"], detail["start"], detail["connected"]) == (1, 1, True)
        assert (detail["reason"], detail["warnings"], detail["connections"]) == ("", [], 0)
        assert list(detail["steps"]) == STEPS
        times = list(detail["steps"].values())
        assert times == sorted(times)
        assert all(MOMENT.fullmatch(one) for one in [*times, detail["last_activity"]])
        assert KernelDetail.model_validate({**detail, "of_a_later_release": 1}).id == kernel
        (listed,) = gateway.ask("GET", "/api/kernels")[1]
        assert MOMENT.fullmatch(listed["last_activity"])


def test_events_tell_a_kernels_whole_life(site: Site) -> None:
    site.spec()
    with gateway_of(site) as gateway:
        kernel = gateway.kernel()
        with events_of(gateway, kernel) as events:
            assert events.answer.status == 200
            assert events.answer.getheader("Content-Type") == "text/event-stream; charset=utf-8"
            started = events.until(state="idle", execution_state="idle")
            assert events.retry > 0
            states = list(dict.fromkeys(detail["state"] for detail in started))
            assert states == [one for one in WAY if one in states]
            assert list(started[-1]["steps"]) == STEPS
            with gateway.client(kernel) as client:
                assert events.until(connections=1)
                client.send("input_ = __import__('time').sleep(600)")
                assert events.until(state="busy", execution_state="busy")
                assert gateway.ask("POST", f"/api/kernels/{kernel}/interrupt")[0] == 204
                assert events.until(state="idle")
            assert events.until(connections=0)
            assert gateway.ask("POST", f"/api/kernels/{kernel}/restart")[0] == 200
            assert events.until(start=2, state="idle", execution_state="idle")
            assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
            rest = list(events)
            assert rest[-1] == ("end", {})
            assert "ending" in [detail["state"] for kind, detail in rest if kind == "kernel"]
        with events_of(gateway, kernel) as events:
            assert events.answer.status == 404


def test_a_quiet_kernel_makes_no_events_and_the_detail_is_the_last_of_them(site: Site) -> None:
    site.spec()
    with gateway_of(site) as gateway:
        kernel = gateway.kernel()
        gateway.until_state(kernel, "idle")
        with events_of(gateway, kernel) as events, events_of(gateway, kernel) as others:
            (first,) = events.until(state="idle")
            assert first == {**gateway.detail(kernel), "last_activity": first["last_activity"]}
            assert others.until(state="idle")
            assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
            assert {detail.get("state") for _, detail in events} <= {"ending", None}


def test_a_failed_launch_and_a_lost_kernel_are_told_with_their_reason(site: Site) -> None:
    site.spec("boom", BOOM)
    with gateway_of(site) as gateway:
        kernel = gateway.kernel("boom")
        with events_of(gateway, kernel) as events:
            failed = events.until(state="dead", execution_state="dead")[-1]
        assert "exited with code 3" in failed["reason"]
        assert "boom" in failed["reason"]
        assert "\n" not in failed["status"]
        assert failed["job_id"], "what it was is still told"
        assert not failed["connected"]


def test_who_may_not_read_kernels_gets_no_events(site: Site) -> None:
    site.spec("slow", SLEEPS)
    with gateway_of(site) as gateway:
        kernel = gateway.kernel("slow")
        with events_of(gateway, kernel, token="wrong") as events:
            assert events.answer.status == 403


def test_a_kernel_that_is_shut_down_while_pending_ends_its_events(site: Site) -> None:
    site.spec("slow", SLEEPS)
    with gateway_of(site) as gateway:
        kernel = gateway.kernel("slow")
        with events_of(gateway, kernel) as events:
            assert events.until(state="starting", status="kernel starting")
            assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
            assert list(events)[-1][0] == "end"


def test_open_streams_do_not_keep_the_server_from_stopping(site: Site) -> None:
    site.spec()
    gateway = Gateway(site)
    gateway.start()
    kernel = gateway.kernel()
    gateway.until_state(kernel, "idle")
    with events_of(gateway, kernel) as events, events_of(gateway, kernel):
        assert events.until(state="idle")
        assert gateway.stop(signal.SIGTERM) == 0
        assert [kind for kind, _ in events if kind == "end"] == [], "the kernel is not gone, its gateway is"
    log = gateway.log.read_text()
    assert "Traceback" not in log
    assert "never retrieved" not in log
    assert "destroyed" not in log
    gateway.start("--shutdown-kernels")
    with events_of(gateway, kernel) as events:
        taken_up = events.until(state="idle", execution_state="idle")[-1]
        assert next(iter(taken_up["steps"])) == "taken up"
    assert gateway.stop(signal.SIGTERM) == 0
    until(lambda: not site.agents(), "no agent is left")
