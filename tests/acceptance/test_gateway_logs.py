"""The log of a real gateway, for people and for machines."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from typing import Any

import pytest

from gateway_kit import Gateway, gateway_of, ledger_of
from site_kit import Site, until

BOOM = (sys.executable, "-c", "raise SystemExit(3)", "{connection_file}")


def lines(gateway: Gateway) -> list[dict[str, Any]]:
    """All lines, each of which is an object."""
    return [json.loads(line) for line in gateway.log.read_text().splitlines()]


def ask_with_token_in_url(gateway: Gateway, path: str) -> int:
    url = f"http://127.0.0.1:{gateway.port}{path}?token={gateway.token}"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("flag", ["--log-json", "--GatewayApp.log_json=True"])
def test_each_line_is_an_object_and_has_the_kernel_it_concerns_and_no_token(site: Site, flag: str) -> None:
    site.spec()
    with gateway_of(site, flag, "--debug") as gateway:
        token = gateway.token
        kernel = gateway.kernel()
        with gateway.client(kernel) as client:
            assert client.run("print(1)") == "1\n"
        assert ask_with_token_in_url(gateway, f"/api/kernels/{kernel}") == 200
        assert ask_with_token_in_url(gateway, f"/api/kernels/{kernel}x") == 404
        assert ask_with_token_in_url(gateway, f"/api/kernels/{kernel}/restart") == 405
        kept = ledger_of(gateway).read_bytes()
        ledger_of(gateway).write_bytes(b"no ledger" * 1000)
        until(lambda: gateway.ask("GET", "/readyz")[0] == 503, "it is not ready")
        ledger_of(gateway).write_bytes(kept)
        until(lambda: gateway.ask("GET", "/readyz")[0] == 200, "it is ready")
        assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
    written = lines(gateway)
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in written)
    assert token not in gateway.log.read_text()
    assert any("auth_token=$(cat " in line["message"] for line in written), "where it is, is told"
    assert "elsewhere.gateway.health" in {line["logger"] for line in written}
    of_kernel = [line["message"] for line in written if line.get("kernel_id") == kernel]
    assert any("404" not in message and "/api/kernels/" in message for message in of_kernel)
    assert len(of_kernel) > 3


def test_lines_for_people_have_the_kernel_too_and_no_token_but_in_the_line_to_connect(site: Site) -> None:
    site.spec("boom", BOOM)
    with gateway_of(site, "--debug") as gateway:
        token = gateway.token
        kernel = gateway.kernel("boom")
        gateway.until_state(kernel, "dead")
        assert ask_with_token_in_url(gateway, "/api/nothing") == 404
        assert ask_with_token_in_url(gateway, f"/api/kernels/{kernel}") == 200
    log = gateway.log.read_text()
    told = [line for line in log.splitlines() if token in line]
    assert len(told) == 1, told
    assert "--GatewayClient.auth_token=" in told[0]
    assert "[secret]" in log
    assert kernel in log
