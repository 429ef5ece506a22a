"""An upgrade of the gateway while agents of the previous protocol run: a stored one, as it was then."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from gateway_kit import SERVE, Gateway, listed, no_jobs
from site_kit import Site

STORED = Path(__file__).parent.parent / "recorded" / "agents" / "protocol-1.zip"

BEFORE_THE_UPGRADE = """
import sys
from pathlib import Path
from elsewhere import parcel
stored = Path(sys.argv.pop(1)).read_bytes()
parcel.agent_archive = lambda: stored
from elsewhere.cli import main
main()
"""


def test_kernels_of_agents_of_protocol_1_go_on_under_this_gateway(site: Site) -> None:
    site.spec()
    gateway = Gateway(site)
    gateway.serve = (sys.executable, "-c", BEFORE_THE_UPGRADE, str(STORED), *SERVE[1:])
    gateway.start()
    kernel, idle = gateway.kernel(), gateway.kernel()
    with gateway.client(kernel) as client:
        assert client.run("x = 41; print('before')") == "before\n"
    gateway.until_state(idle, "idle")
    agents = site.agents()
    assert gateway.stop(signal.SIGKILL) == -signal.SIGKILL
    gateway.serve = SERVE
    gateway.start("--shutdown-kernels")
    assert set(listed(gateway)) == {kernel, idle}
    with gateway.client(kernel) as client, gateway.client(kernel) as other:
        assert client.run("x += 1; print(x)") == "42\n"
        assert other.run("print(x)") == "42\n"
        lines = client.run("for i in range(5000): print(i, flush=True)").split()
        assert lines == [str(number) for number in range(5000)]
    gateway.until_state(kernel, "idle")
    before = gateway.detail(kernel)
    assert gateway.ask("POST", f"/api/kernels/{kernel}/restart")[0] == 200
    with gateway.client(kernel) as client:
        assert client.run("print('x' in dir())") == "False\n"
    after = gateway.detail(kernel)
    assert (after["job_id"], after["start"]) == (before["job_id"], before["start"] + 1)
    assert site.agents() == agents
    assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
    assert gateway.ask("DELETE", f"/api/kernels/{idle}")[0] == 204
    no_jobs(site)
    assert gateway.stop(signal.SIGTERM) == 0
    assert "Traceback" not in gateway.log.read_text()
