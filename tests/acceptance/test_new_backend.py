"""``elsewhere new-backend``: what it writes installs, is found, and its first law passes."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from gateway_kit import PROGRAM

ROOT = Path(__file__).resolve().parents[2]
INSTALLING = 400.0


def run(*argv: str | Path, cwd: Path, expect: int = 0, timeout: float = 60.0) -> str:
    done = subprocess.run(
        list(map(str, argv)), cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.timeout(2 * INSTALLING)
def test_the_skeleton_works_in_a_fresh_virtual_environment(tmp_path: Path) -> None:
    told = run(PROGRAM, "new-backend", "my-queue", cwd=tmp_path)
    assert "cd elsewhere-my-queue && pip install -e '.[test]' && pytest" in told
    package = tmp_path / "elsewhere-my-queue"
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, ROOT, "--editable", f"{package}[test]", cwd=tmp_path, timeout=INSTALLING)
    verdicts = run(python, "-m", "pytest", "-q", "-rs", cwd=package, timeout=INSTALLING)
    assert "1 passed, 48 skipped" in verdicts
    assert "`submit` is not written yet" in verdicts
    elsewhere = python.with_name("elsewhere")
    told = run(elsewhere, "laws", "my-queue", "-k", "render or parcel", cwd=tmp_path)
    assert "1 kept, 0 broken, 1 not tried" in told
    assert "did you mean `my-queue`" in run(elsewhere, "laws", "my-queu", cwd=tmp_path, expect=1)


def test_the_skeleton_is_typed_and_tidy(tmp_path: Path) -> None:
    run(PROGRAM, "new-backend", "x", "--directory", "here", cwd=tmp_path)
    source = tmp_path / "here" / "src" / "elsewhere_x" / "__init__.py"
    run(sys.executable, "-m", "mypy", "--strict", source, cwd=ROOT, timeout=200)
    run(sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E,F,UP,B", "--line-length", "110",
        tmp_path / "here", cwd=tmp_path)  # fmt: skip


@pytest.mark.parametrize(
    "name", ["", "Slurm", "my queue", "-x", "x-", "x--y", "x_y", "../x", "x\ny", "ü", "$(id)"]
)
def test_what_is_no_name_is_refused(name: str, tmp_path: Path) -> None:
    assert "is no name for a backend" in run(PROGRAM, "new-backend", "--", name, cwd=tmp_path, expect=1)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    assert "installed already" in run(PROGRAM, "new-backend", "local", cwd=tmp_path, expect=1)
    (tmp_path / "elsewhere-x").mkdir()
    (tmp_path / "elsewhere-x" / "mine").touch()
    assert "is there already" in run(PROGRAM, "new-backend", "x", cwd=tmp_path, expect=1)
    (tmp_path / "file").touch()
    assert "is there already" in run(
        PROGRAM, "new-backend", "x", "--directory", "file", cwd=tmp_path, expect=1
    )
    assert [path.name for path in (tmp_path / "elsewhere-x").iterdir()] == ["mine"]
