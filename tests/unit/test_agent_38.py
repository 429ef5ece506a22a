"""The agent on the oldest Python that it promises, and its one clear line on those before."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from agent_kit import Home, client_of, job_of, order_of
from elsewhere import agent
from elsewhere.parcel import agent_archive

MODULES = sorted(Path(agent.__file__).parent.glob("*.py"))


def interpreter(version: str) -> str:
    """An interpreter of that version, on PATH or of pyenv; the test is skipped if there is none."""
    candidates = [shutil.which(f"python{version}")]
    candidates += map(str, Path("~/.pyenv/versions").expanduser().glob(f"{version}*/bin/python{version}"))
    for path in filter(None, candidates):
        answer = subprocess.run(
            [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            check=False,
        )
        if answer.stdout.decode().strip() == version:
            return path
    pytest.skip(f"no Python {version} on PATH or in ~/.pyenv")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_it_parses(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.13"])
async def test_it_runs(home: Home, short: Path, version: str) -> None:
    async with job_of(home, short, python=interpreter(version)) as job, client_of(job.line, short) as client:
        await job.ready()
        await client.ask("publish", "0", "1000")
        assert await client.numbers(1000) == list(range(1000))
        await job.line.command("signal", signum=signal.SIGINT)
        assert await client.numbers(1) == [1]
        mux = job.line._mux
        assert mux is not None
        mux.abort("torn")
        assert await client.facts()
        job.line.start(order_of(2, transport="tcp"))
        await job.ready(2)
        assert (await client.facts())["ppid"] == job.pid
        job.line.command("end", grace=5)
        output = await job.over()
        assert output.endswith("elsewhere agent: ending the job: home ended it\n")
        assert "Warning" not in output
        assert "Traceback" not in output
        assert job.left() == []


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_an_older_one_gets_one_clear_line(tmp_path: Path, version: str) -> None:
    python = interpreter(version)
    archive = tmp_path / "agent.pyz"
    archive.write_bytes(agent_archive())
    environ = {"PATH": os.environ["PATH"]}
    answer = subprocess.run([python, str(archive)], capture_output=True, check=False, env=environ)
    lines = answer.stderr.decode().splitlines()
    assert len(lines) == 1
    assert "the agent needs Python 3.8 or newer" in lines[0]
    assert f"is {version}" in lines[0]
    assert "set the option `python`" in lines[0]
    assert (answer.returncode, answer.stdout) == (1, b"")
