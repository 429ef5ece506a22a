"""What stock servers do to kernels and to those who wait, and a gateway does not: traps of the design.

Each other trap is in the test of what it belongs to; docs/architecture.md lists them all.
"""

from __future__ import annotations

from typing import Any

import pytest

from gateway_kit import gateway_of
from site_kit import STUB, Site


def test_a_websocket_asks_the_kernel_nothing_by_itself(site: Site) -> None:
    """Stock: three kernel_info requests and a nudge for each websocket that opens."""
    site.spec("stub", STUB)
    with gateway_of(site) as gateway:
        kernel = gateway.kernel("stub")
        for number in range(3):
            with gateway.client(kernel) as client, gateway.client(kernel) as another:
                assert client.run(f"echo {number}") == str(number)
                assert another.run("echo x") == "x"
        with gateway.client(kernel) as client:
            assert client.run("get asked").split() == ["execute_request"] * 7


@pytest.mark.parametrize("body", [{}, {"env": {}}, {"env": {"PATH": "/nowhere", "OF_THE_SERVER": "no"}}])
def test_nothing_of_the_servers_environment_reaches_a_kernel(
    site: Site, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any]
) -> None:
    """Stock: without ``env`` in the request, all of it."""
    monkeypatch.setenv("OF_THE_SERVER", "secret")
    monkeypatch.setenv("KERNEL_OF_THE_SERVER", "secret")
    site.spec()
    with gateway_of(site) as gateway, gateway.client(gateway.kernel(**body)) as client:
        code = "import os; print([name for name in os.environ if 'SERVER' in name], os.environ['PATH'])"
        shown, path = client.run(code).split(" ", 1)
        assert shown == "[]"
        assert "/nowhere" not in path
        assert client.run("import os; print(os.environ.get('JPY_PARENT_PID'))") == "None\n"


def test_no_output_is_dropped_however_quickly_it_comes(site: Site) -> None:
    """Stock: a rate limit on iopub drops what is printed too quickly."""
    site.spec("stub", STUB)
    with gateway_of(site) as gateway, gateway.client(gateway.kernel("stub")) as client:
        printed = client.run("print 20000")
        assert printed == "".join(f"{number}\n" for number in range(20000))
