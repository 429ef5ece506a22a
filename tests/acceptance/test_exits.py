"""The end of the process that started kernels: by itself, by Ctrl-C, by an error. Nothing stays."""

from __future__ import annotations

import signal

import pytest

from site_kit import PATIENCE, Site, until

RUNNING = """
from jupyter_client.manager import KernelManager
managers = [KernelManager(kernel_name="away") for _ in range(2)]
for manager in managers:
    manager.start_kernel()
print("started", flush=True)
"""

IN_LOOP = """
import asyncio
from jupyter_client.manager import AsyncKernelManager
async def main():
    manager = AsyncKernelManager(kernel_name="away")
    await manager.start_kernel()
    print("started", flush=True)
asyncio.run(main())
"""

WAITING = """
from jupyter_client.manager import KernelManager
KernelManager(kernel_name="away").start_kernel()
"""

WAITING_IN_LOOP = """
import asyncio
from jupyter_client.manager import AsyncKernelManager
asyncio.run(AsyncKernelManager(kernel_name="away").start_kernel())
"""

CATCHES = """
from jupyter_client.manager import KernelManager
manager = KernelManager(kernel_name="away")
try:
    manager.start_kernel()
except KeyboardInterrupt:
    print("interrupted", flush=True)
input()
"""

MUTE = ("sleep", "1000")
"""A kernel that never listens."""


@pytest.mark.parametrize(
    ("program", "code"),
    [(RUNNING, 0), (IN_LOOP, 0), (RUNNING + "raise SystemExit(3)", 3), (RUNNING + "1 / 0", 1)],
    ids=["end", "end-of-loop", "exit", "error"],
)
def test_an_exit_ends_the_kernels(site: Site, program: str, code: int) -> None:
    site.spec()
    with site.python(program) as process:
        output, errors = process.communicate(timeout=PATIENCE)
    assert output == "started\n", errors
    assert process.returncode == code, errors
    assert ("ZeroDivisionError" in errors) == ("1 / 0" in program)
    progress = "elsewhere: kernel "  # what a launch waits for is told when the machine is slow
    assert "elsewhere" not in "".join(line for line in errors.splitlines() if not line.startswith(progress))
    site.expect_nothing_left()


@pytest.mark.parametrize("program", [WAITING, WAITING_IN_LOOP], ids=["blocking", "in-loop"])
def test_ctrl_c_while_a_launch_waits(site: Site, program: str) -> None:
    site.spec(argv=MUTE)
    with site.python(program) as process:
        until(lambda: site.job_processes("sleep"), "the kernel's process is there")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode in (1, 130, -signal.SIGINT)
    assert "KeyboardInterrupt" in errors
    assert "start_timeout" not in errors
    site.expect_nothing_left()


def test_ctrl_c_frees_the_job_even_if_the_process_goes_on(site: Site) -> None:
    """A blocking host only stops its loop, and tells nobody: the start's own timeout ends the job."""
    site.spec(argv=MUTE, start_timeout=4)
    with site.python(CATCHES) as process:
        until(lambda: site.job_processes("sleep"), "the kernel's process is there")
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "interrupted\n"
        until(lambda: not site.job_processes(), "the job ends")
        until(lambda: not list(site.jobs.iterdir()), "the job's directory goes")
        process.communicate("\n", timeout=PATIENCE)


def test_sigterm_of_a_process_that_does_not_handle_it_is_as_good_as_a_kill(site: Site) -> None:
    """No exit handler runs then: the agent's grace is what ends the job."""
    site.spec(orphan_grace=1)
    with site.python(RUNNING + "input()") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.terminate()
        assert process.wait(PATIENCE) == -signal.SIGTERM
    until(lambda: not site.job_processes(), "the jobs end")
    until(lambda: not list(site.jobs.iterdir()), "the jobs' directories go")
    site.kill_all()
