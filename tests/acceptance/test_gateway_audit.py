"""What is written down of who did what with which kernel; and what never is."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import websocket

from access_kit import tokens
from gateway_kit import SERVE, Client, Gateway, gateway_of
from site_kit import PATIENCE, STUB, Site, until

CANARY = "canary-of-the-audit"


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def told(log: Path, /, **wanted: object) -> bool:
    return any(all(event[name] == value for name, value in wanted.items()) for event in events(log))


def test_each_act_on_a_kernel_is_one_event(site: Site) -> None:
    site.spec("stub", STUB)
    path = site.root / "audit.jsonl"
    with gateway_of(site, f"--GatewayApp.audit_log={path}") as gateway:
        by = tokens(gateway)
        asked = {"name": "stub", "env": {"KERNEL_SECRET": CANARY}}
        kernel = gateway.ask("POST", "/api/kernels", asked, token=by["owner"])[1]["id"]
        about = {"kernel_id": kernel, "owner": "ada", "address": "127.0.0.1"}
        gateway.until_state(kernel, "idle")
        join(gateway, by["owner"], kernel)
        gateway.ask("GET", f"/api/kernels/{kernel}?x={CANARY}", token=by["other"])
        gateway.ask("POST", f"/api/kernels/{kernel}/interrupt", token=by["nobody"])
        gateway.ask("PUT", f"/api/kernels/{kernel}/shares/reader", {"read_only": True}, token=by["owner"])
        gateway.ask("DELETE", f"/api/kernels/{kernel}", token=by["reader"])
        gateway.ask("DELETE", f"/api/kernels/{kernel}", token=by["owner"])
        notebook = {"path": CANARY, "name": "a", "type": "notebook", "kernel": {"name": "stub"}}
        session = gateway.ask("POST", "/api/sessions", notebook, token=by["service"])[1]
        gateway.ask("DELETE", f"/api/sessions/{session['id']}", token=by["service"])
        until(lambda: told(path, act="end", who="hub"), "the last is written")
        ada = {"who": "ada", "role": "user", **about}
        for wanted in (
            {**ada, "act": "start", "method": "POST", "status": 201, "allowed": True},
            {**ada, "act": "see", "path": f"/api/kernels/{kernel}/channels", "status": 101, "allowed": True},
            {**about, "who": "other", "act": "see", "status": 404, "allowed": False},
            {"who": "", "role": "", "act": "control", "status": 403, "allowed": False},
            {**ada, "act": "share", "status": 200},
            {**about, "who": "reader", "act": "end", "status": 403, "allowed": False},
            {**ada, "act": "end", "status": 204},
            {"who": "hub", "role": "service", "act": "start", "kernel_id": session["kernel"]["id"]},
        ):
            assert told(path, **wanted), (wanted, events(path))
        ends = [event for event in events(path) if event["act"] == "end" and event["who"] == "ada"]
        assert len(ends) == 1
        text = path.read_text()
        assert CANARY not in text
        assert not any(token and token in text for token in by.values())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def join(gateway: Gateway, token: str, kernel: str) -> None:
    url = gateway.url.replace("http", "ws", 1) + f"/api/kernels/{kernel}/channels?token={token}"
    connection = websocket.create_connection(url, timeout=PATIENCE)
    try:
        assert Client(connection).run("print 1") == "0\n"
    finally:
        connection.close()


@pytest.mark.parametrize("target", ["/nowhere/audit.jsonl", "/"])
def test_a_file_that_cannot_be_had_is_said_at_once(site: Site, target: str) -> None:
    argv = [*SERVE, "--port=0", f"--data-directory={site.root}/g", f"--GatewayApp.audit_log={target}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert f"--GatewayApp.audit_log={target}: " in done.stderr
    assert "Traceback" not in done.stderr
