"""The examples, run as a person would run them: by stock programs, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
PROGRAMS = Path(sys.executable).parent
DEMO = [sys.executable, str(EXAMPLES / "demo.py")]


@pytest.fixture
def account() -> Iterator[Path]:
    """The directory of an account of its own; the path is short, for sockets live below it."""
    place = Path(tempfile.mkdtemp(prefix="ew-", dir="/tmp"))
    for name in ("run", "data", "config", "runtime", "ipython"):
        Path(place, name).mkdir(mode=0o700)
    yield place
    shutil.rmtree(place)


def environ(account: Path) -> dict[str, str]:
    """The variables that make a process one of this account."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    return {
        **kept,
        "XDG_RUNTIME_DIR": f"{account}/run",
        "JUPYTER_DATA_DIR": f"{account}/data",
        "JUPYTER_CONFIG_DIR": f"{account}/config",
        "JUPYTER_RUNTIME_DIR": f"{account}/runtime",
        "IPYTHONDIR": f"{account}/ipython",
        "MPLCONFIGDIR": tempfile.gettempdir() + "/elsewhere-test-matplotlib",
        "PYTHONUNBUFFERED": "1",
    }


def left(account: Path) -> list[str]:
    """The processes and the job files of this account that are there."""
    mark = f"XDG_RUNTIME_DIR={account}/run".encode()
    found = [str(path) for path in account.glob("run/elsewhere/local/*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def run(argv: list[str], account: Path) -> str:
    """Run a program to its end, which must be a good one; returns what it printed."""
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=100, env=environ(account), cwd=account
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def outputs(notebook: Path) -> str:
    """Return everything that its cells printed or showed, as JSON."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["execution_count"] for cell in code)
    return json.dumps([cell["outputs"] for cell in code])


def write_notebook(path: Path, source: str) -> Path:
    """Write a notebook of one cell."""
    code: dict[str, object] = {
        "cell_type": "code",
        "id": "a",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    whole = {"cells": [{**code, "source": source}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(whole), encoding="utf-8")
    return path


@pytest.mark.parametrize("program", ["nbclient", "papermill"])
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_stock_programs_execute_the_examples_elsewhere(notebook: Path, program: str, account: Path) -> None:
    run([str(PROGRAMS / "elsewhere"), "specs", "add", "local", "--user"], account)
    copy, executed = account / notebook.name, account / "executed.ipynb"
    shutil.copy(notebook, copy)
    if program == "papermill":
        run([str(PROGRAMS / "papermill"), "-k", "python3-local", str(copy), str(executed)], account)
    else:
        options = ["--kernel_name=python3-local", f"--output={executed.stem}"]
        run([str(PROGRAMS / "jupyter-execute"), *options, str(copy)], account)
    shown = outputs(executed)
    assert re.search(r"elsewhere-[0-9a-f]+-1-", shown)
    assert '"image/png"' in shown
    assert '"text/html"' in shown
    assert left(account) == []


def test_the_examples_are_kept_without_outputs() -> None:
    for notebook in NOTEBOOKS:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_the_demo_ends_by_itself_and_tells_each_step(account: Path) -> None:
    printed = run([*DEMO, "--build", str(account / "build")], account)
    times = {
        name: float(seconds)
        for seconds, name in re.findall(r"^ *([0-9.]+) s  (\w+(?: \w+)?)", printed, re.MULTILINE)
    }
    steps = ["asked", "submitted", "running", "agent home", "kernel ready", "cell 1", "cell 2", "cell 3"]
    assert list(times) == [*steps, "cell 4", "end", "gateway ended"]
    assert re.search(
        r"^\$ elsewhere serve .*\nthe gateway serves at http://127\.0\.0\.1:\d+;", printed, re.MULTILINE
    )
    assert sorted(times.values()) == list(times.values())
    for name in ("first.ipynb", "first.html"):
        assert f"build/{name}\n" in printed
    assert "elsewhere-" in outputs(account / "build" / "first.ipynb")
    page = (account / "build" / "first.html").read_text(encoding="utf-8")
    assert "data:image/png;base64" in page
    assert not re.search(r"""(src|href|from)\s*=?\s*["']https?:""", page)
    assert list((account / "data").iterdir()) == []
    assert left(account) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", ["submitted", "kernel ready"])
def test_an_interrupted_demo_leaves_nothing(step: str, signum: int, account: Path) -> None:
    notebook = write_notebook(account / "long.ipynb", "import time; time.sleep(600)")
    argv = [*DEMO, str(notebook), "--build", str(account / "build")]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=environ(account)) as demo:
        try:
            assert demo.stdout
            for line in demo.stdout:
                if step in line:
                    demo.send_signal(signum)
                    break
            _, errors = demo.communicate(timeout=60)
        finally:
            demo.kill()
    assert demo.returncode == 1
    assert "demo: interrupted" in errors
    assert "Traceback" not in errors
    assert left(account) == []


@pytest.mark.parametrize(
    ("source", "why"),
    [("import os; os._exit(3)", "the kernel exited with code 3"), ("1 / 0", "ZeroDivisionError")],
)
def test_a_demo_that_cannot_go_on_says_why(source: str, why: str, account: Path) -> None:
    notebook = write_notebook(account / "bad.ipynb", source)
    assert why in failure([str(notebook)], account)


def test_a_demo_without_a_notebook_says_so(account: Path) -> None:
    notebook = account / "no.ipynb"
    assert f"demo: {notebook}: No such file" in failure([str(notebook)], account)
    notebook.write_text("{}")
    assert f"demo: {notebook} is not a notebook" in failure([str(notebook)], account)


def test_a_demo_whose_job_is_refused_says_so(account: Path) -> None:
    (account / "run" / "elsewhere").mkdir(mode=0o755)
    said = failure([], account)
    assert "the kernel did not start (submit): cannot keep jobs in" in said


def failure(arguments: list[str], account: Path) -> str:
    """Run a demo that fails, and leaves nothing; returns what it said."""
    argv = [*DEMO, *arguments, "--build", str(account / "build")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environ(account))
    assert done.returncode == 1
    assert "most recent call last" not in done.stderr.replace("Traceback (most recent call last)\nCell", "")
    assert left(account) == []
    return done.stderr
