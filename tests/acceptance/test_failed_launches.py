"""Launches that fail: each says the step, the reason and the log's last lines, and leaves nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager, KernelManager

from client_kit import connected, kernel_of, run
from elsewhere.errors import LaunchFailed, Rejected
from launch_failures import FAILURES, Failure
from site_kit import IPYKERNEL, Site, home


@pytest.mark.parametrize("failure", FAILURES.values(), ids=[*FAILURES])
def test_a_failed_launch_tells_why_and_leaves_nothing(site: Site, failure: Failure) -> None:
    name = site.spec(argv=failure.argv, **failure.options)
    manager = KernelManager(kernel_name=name)
    with pytest.raises((LaunchFailed, Rejected)) as raised:
        manager.start_kernel()
    text = str(raised.value)
    assert failure.reason in text
    assert failure.log in text
    assert f"({failure.step})" in text
    site.expect_nothing_left(home_lives=True)
    expect_forgotten()
    start_again_without_the_cause(site, manager)


async def test_the_same_under_an_async_manager(site: Site) -> None:
    manager: Any = AsyncKernelManager(kernel_name=site.spec(python="false"))
    with pytest.raises(LaunchFailed, match="exited with code 1"):
        await manager.start_kernel()
    with pytest.raises(LaunchFailed, match="exited with code 1"):
        await manager.ready
    site.expect_nothing_left(home_lives=True)
    expect_forgotten()


def test_a_failed_restart_ends_the_job_and_can_be_repeated(site: Site) -> None:
    """The kernel's program has gone meanwhile: the job has nothing to do any more."""
    program = site.root / "kernel"
    program.write_text(f'#!/bin/sh\nexec "{IPYKERNEL[0]}" "$@"\n')
    program.chmod(0o700)
    manager = KernelManager(kernel_name=site.spec(argv=(str(program), *IPYKERNEL[1:])))
    manager.start_kernel()
    program.unlink()
    with pytest.raises(LaunchFailed, match="there is no program"):
        manager.restart_kernel(now=True)
    site.expect_nothing_left(home_lives=True)
    start_again_without_the_cause(site, manager)


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_an_interpreter_too_old_for_the_agent_gets_one_clear_line(site: Site, version: str) -> None:
    python = interpreter(version)
    manager = KernelManager(kernel_name=site.spec(python=python))
    with pytest.raises(LaunchFailed) as raised:
        manager.start_kernel()
    text = str(raised.value)
    assert version in text
    assert "3.8" in text
    assert "Traceback" not in text
    site.expect_nothing_left(home_lives=True)


def expect_forgotten() -> None:
    """Our own memory holds nothing of it either."""
    assert home().switchboard.lines == {}
    assert [entry for roster in home()._rosters.values() for entry in roster._entries] == []


def start_again_without_the_cause(site: Site, manager: Any) -> None:
    """The same manager of the same kernel, as after a person has mended the kernelspec."""
    site.spec()
    repaired = KernelManager(kernel_name="away").kernel_spec
    assert repaired is not None
    manager.kernel_spec.argv = repaired.argv
    manager.provisioner.stanza = repaired.metadata["kernel_provisioner"]["config"]
    manager.start_kernel()
    with connected(manager) as client:
        assert run(client, "1 + 1").value == "2"
    assert kernel_of(manager).poll() is None
    manager.shutdown_kernel(now=True)


def interpreter(version: str) -> str:
    """Return a Python of this version that runs here, or skip."""
    found = [str(path) for path in Path.home().glob(f".pyenv/versions/{version}*/bin/python")]
    found.append(shutil.which(f"python{version}") or "")
    for path in filter(None, found):
        asked = subprocess.run([path, "--version"], capture_output=True, text=True)
        if re.search(rf"Python {re.escape(version)}\b", asked.stdout + asked.stderr):
            return path
    pytest.skip(f"there is no Python {version} on this machine")
