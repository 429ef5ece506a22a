"""kill -9 of the home process: agent and kernel end after their grace, and nothing of them stays."""

from __future__ import annotations

from site_kit import PATIENCE, Site, gone, until

HOME = """
import sys
from jupyter_client.manager import KernelManager
manager = KernelManager(kernel_name="away")
manager.start_kernel()
print("started", flush=True)
sys.stdin.read()
"""

LATER = """
from jupyter_client.manager import KernelManager
manager = KernelManager(kernel_name="away")
manager.start_kernel()
manager.shutdown_kernel(now=True)
"""


def test_what_a_killed_home_started_ends_after_its_grace(site: Site) -> None:
    site.spec(orphan_grace=1)
    with site.python(HOME) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        (agent,), (kernel,) = site.agents(), site.job_processes("connection.json")
        process.kill()
        process.wait(PATIENCE)
    until(lambda: gone(agent), "the agent ends")
    until(lambda: gone(kernel), "the kernel ends")
    until(lambda: not list(site.jobs.iterdir()), "the job's directory goes")
    endpoints = [path for path in (site.runtime / "elsewhere-home").iterdir() if path.is_dir()]
    assert len(endpoints) == 1, "a process that was killed cannot remove its endpoints"
    with site.python(LATER) as process:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    site.expect_nothing_left()  # the next home has swept them


def test_a_kernel_computes_on_while_its_home_may_yet_come_back(site: Site) -> None:
    site.spec(orphan_grace=PATIENCE)
    with site.python(HOME) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        (agent,), (kernel,) = site.agents(), site.job_processes("connection.json")
        process.kill()
        process.wait(PATIENCE)
        assert not gone(agent)
        assert not gone(kernel)
    site.kill_all()
