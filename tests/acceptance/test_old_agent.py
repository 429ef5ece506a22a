"""The agent on the oldest Python that it promises to run on, beside a kernel of another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from client_kit import Message, facts, run, started
from site_kit import PATIENCE, Site

ASK = "import sys; print('.'.join(map(str, sys.version_info[:2])))"


def python38() -> str:
    """Return a Python 3.8 that runs here, or skip."""
    found = [str(path) for path in Path.home().glob(".pyenv/versions/3.8*/bin/python3.8")]
    for path in filter(None, [*found, shutil.which("python3.8")]):
        if subprocess.run([path, "-c", ASK], capture_output=True, text=True).stdout == "3.8\n":
            return path
    pytest.skip("there is no Python 3.8 on this machine")


def test_an_agent_of_python_3_8_carries_a_kernel_of_another(site: Site) -> None:
    python = python38()
    name = site.spec(python=python)
    with started(name) as (manager, client):
        (agent,) = site.agents()
        assert Path(os.readlink(f"/proc/{agent}/exe")).name == "python3.8"
        version = f"{sys.version_info[0]}.{sys.version_info[1]}\n"
        assert run(client, ASK).text == version
        assert run(client, "input()", answer="answered").value == "'answered'"
        lines = run(client, "for i in range(2000): print(i, flush=True)").text.split()
        assert lines == [str(number) for number in range(2000)]

        def interrupt(message: Message) -> None:
            if message["msg_type"] == "stream":
                manager.interrupt_kernel()

        assert run(client, "print('busy', flush=True)\nwhile True: pass", heard=interrupt).status == "error"
        before = facts(manager)
        manager.restart_kernel()
        client.wait_for_ready(timeout=PATIENCE)
        assert facts(manager) == before
        assert site.agents() == [agent]
