"""``make serve``, as a person in a clone has it: every kernel that is installed, as jobs of this machine."""

from __future__ import annotations

import signal
from pathlib import Path

from gateway_kit import Gateway, listed, no_jobs
from site_kit import Site, until

ROOT = Path(__file__).resolve().parents[2]


class Made(Gateway):
    """The gateway that make starts."""

    @property
    def argv(self) -> list[str]:
        return ["make", "-C", str(ROOT), "serve", f"PORT={self.port}", f"DATA={self.data}"]


def test_it_serves_every_kernel_that_is_installed_and_leaves_them_running(site: Site) -> None:
    gateway = Made(site)
    gateway.start()
    _, specs = gateway.ask("GET", "/api/kernelspecs")
    assert "python3" in specs["kernelspecs"]
    kernel = gateway.kernel("python3")
    with gateway.client(kernel) as client:
        assert client.run("x = 6; import os; print(os.environ['ELSEWHERE_JOB'][:9])") == "elsewhere\n"
    gateway.stop(signal.SIGTERM)
    until(lambda: "1 kernel(s) run on" in gateway.log.read_text(), "make has ended the gateway")
    gateway.start()
    assert listed(gateway) == [kernel]
    with gateway.client(kernel) as client:
        assert client.run("print(x * 7)") == "42\n"
    assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
    no_jobs(site)
    gateway.stop(signal.SIGTERM)
    until(gateway.ended, "make ends")
    for place in ("elsewhere/local", "elsewhere"):
        (site.runtime / place).rmdir()  # where `local` keeps its jobs by default; empty
