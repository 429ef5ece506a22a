"""``/api/sessions`` of a gateway: all that a direct client may do with it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gateway_kit import Gateway, gateway_of, listed, no_jobs
from site_kit import STUB, Site

SLEEPS = (sys.executable, "-c", "import time; time.sleep(600)", "{connection_file}")
BOOM = (sys.executable, "-c", "raise SystemExit(3)", "{connection_file}")


@pytest.fixture
def gateway(site: Site) -> Iterator[Gateway]:
    site.spec("stub", STUB)
    site.spec("slow", SLEEPS)
    site.spec("boom", BOOM)
    with gateway_of(site) as gateway:
        yield gateway


def session_of(gateway: Gateway, name: str = "stub", path: str = "a.ipynb") -> dict[str, Any]:
    body = {"path": path, "name": path, "type": "notebook", "kernel": {"name": name}}
    status, model = gateway.ask("POST", "/api/sessions", body)
    assert status == 201, model
    assert isinstance(model, dict)
    return model


def sessions(gateway: Gateway) -> list[dict[str, Any]]:
    status, models = gateway.ask("GET", "/api/sessions")
    assert status == 200
    assert isinstance(models, list)
    return models


def test_a_session_from_its_start_to_its_end(gateway: Gateway, site: Site) -> None:
    model = session_of(gateway)
    one, kernel = model["id"], model["kernel"]["id"]
    assert (model["path"], model["type"]) == ("a.ipynb", "notebook")
    assert model["kernel"]["execution_state"] == "starting"
    assert [each["id"] for each in sessions(gateway)] == [one]
    gateway.until_state(kernel, "idle")
    status, again = gateway.ask("GET", f"/api/sessions/{one}")
    assert (status, again["kernel"]["execution_state"]) == (200, "idle")
    with gateway.client(kernel) as client:
        assert client.run("echo 1") == "1"
    assert gateway.ask("DELETE", f"/api/sessions/{one}")[0] == 204
    assert (sessions(gateway), listed(gateway)) == ([], [])
    assert gateway.ask("GET", f"/api/sessions/{one}")[0] == 404
    assert gateway.ask("DELETE", f"/api/sessions/{one}")[0] == 404
    no_jobs(site)


def test_the_same_notebook_is_the_same_session(gateway: Gateway) -> None:
    first, second = session_of(gateway), session_of(gateway)
    assert first["id"] == second["id"]
    assert first["kernel"]["id"] == second["kernel"]["id"]
    assert len(listed(gateway)) == 1


def test_a_session_changes_its_kernel_and_keeps_its_own(gateway: Gateway) -> None:
    one = session_of(gateway)
    other = gateway.kernel("stub")
    change = {"kernel": {"id": other}}
    status, model = gateway.ask("PATCH", f"/api/sessions/{one['id']}", change)
    assert (status, model["kernel"]["id"]) == (200, other)
    assert listed(gateway) == [other]
    change = {"kernel": {"id": "11111111-1111-1111-1111-111111111111"}}
    status, told = gateway.ask("PATCH", f"/api/sessions/{one['id']}", change)
    assert (status, "No such kernel" in told["message"]) == (400, True)
    status, told = gateway.ask("PATCH", f"/api/sessions/{one['id']}", {"kernel": {"name": "stib"}})
    assert (status, "did you mean `stub`?" in told["message"]) == (400, True)
    assert [each["kernel"]["id"] for each in sessions(gateway)] == [other]


def test_the_session_of_a_kernel_that_was_ended_is_gone(gateway: Gateway) -> None:
    one, two = session_of(gateway), session_of(gateway, path="b.ipynb")
    assert gateway.ask("DELETE", f"/api/kernels/{one['kernel']['id']}")[0] == 204
    assert [each["id"] for each in sessions(gateway)] == [two["id"]]


def test_the_session_of_a_pending_kernel_can_be_ended(gateway: Gateway, site: Site) -> None:
    one = session_of(gateway, "slow")
    assert gateway.ask("DELETE", f"/api/sessions/{one['id']}")[0] == 204
    assert (sessions(gateway), listed(gateway)) == ([], [])
    no_jobs(site)


def test_the_session_of_a_kernel_that_did_not_start_says_so(gateway: Gateway) -> None:
    one = session_of(gateway, "boom")
    gateway.until_state(one["kernel"]["id"], "dead")
    (shown,) = sessions(gateway)
    assert shown["kernel"]["execution_state"] == "dead"
    assert "exited with code 3" in shown["kernel"]["reason"]
    assert gateway.ask("DELETE", f"/api/sessions/{one['id']}")[0] == 204
    assert sessions(gateway) == []


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_sessions_outlive_the_gateway(site: Site, signum: int) -> None:
    site.spec("stub", STUB)
    gateway = Gateway(site)
    gateway.start()
    before = [session_of(gateway, path=path) for path in ("a.ipynb", "it's $(b)\n🙂.ipynb")]
    for one in before:
        gateway.until_state(one["kernel"]["id"], "idle")
    gateway.stop(signum)
    gateway.start("--shutdown-kernels")
    assert {(each["id"], each["path"], each["kernel"]["id"]) for each in sessions(gateway)} == {
        (each["id"], each["path"], each["kernel"]["id"]) for each in before
    }
    assert gateway.ask("DELETE", f"/api/sessions/{before[0]['id']}")[0] == 204
    assert listed(gateway) == [before[1]["kernel"]["id"]]
    assert gateway.stop(signal.SIGTERM) == 0
