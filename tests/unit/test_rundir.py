"""The directory for sockets: private, swept, and safe among several processes."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from elsewhere import rundir
from elsewhere.errors import ElsewhereError
from elsewhere.rundir import RunDirectory, private


def test_it_is_ours_alone_and_goes_with_all_that_it_holds(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    (directory.path / "deep").mkdir()
    (directory.path / "deep" / "file").touch()
    directory.remove()
    directory.remove()
    assert list(tmp_path.iterdir()) == []


def test_it_is_in_the_runtime_directory_or_in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Path("/tmp") / f"ew-test-{os.getpid()}"
    runtime.mkdir(mode=0o700)
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        directory = RunDirectory()
        assert directory.path.parent == runtime / "elsewhere-home"
        directory.remove()
        (runtime / "elsewhere-home").rmdir()
        for bad in ("", str(tmp_path / "none"), "/tmp/" + "x" * 70):
            monkeypatch.setenv("XDG_RUNTIME_DIR", bad)
            directory = RunDirectory()
            assert directory.path.parent == Path(f"/tmp/elsewhere-home-{os.getuid()}")
            directory.remove()
    finally:
        runtime.rmdir()


PROGRAM = """
import sys
from pathlib import Path
from elsewhere.rundir import RunDirectory
print(RunDirectory(Path(sys.argv[1])).path, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
        (path / "s1").touch()
        RunDirectory(tmp_path).remove()
        assert (path / "s1").exists()
        other.kill()
        other.wait()
        assert (path / "s1").exists()
        RunDirectory(tmp_path).remove()
        assert list(tmp_path.iterdir()) == []


def test_many_at_once_do_not_sweep_each_other(tmp_path: Path) -> None:
    program = PROGRAM.replace(
        "sys.stdin.read()", "[RunDirectory(Path(sys.argv[1])).path.stat() for _ in range(60)]"
    )
    argv = [sys.executable, "-c", program, str(tmp_path)]
    others = [subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(3)]
    for other in others:
        _, errors = other.communicate(timeout=60)
        assert (other.returncode, errors) == (0, b"")


def test_its_lock_is_held_before_anybody_can_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who sweeps between the making of the lock and its taking would remove a living one."""
    swept: list[str] = []
    real = fcntl.flock

    def flock(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        rundir._sweep(tmp_path)
        swept.extend(path.name for path in tmp_path.iterdir())
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    directory = RunDirectory(tmp_path)
    assert swept == [directory.path.name]
    assert sorted(path.name for path in directory.path.iterdir()) == ["lock"]
    directory.remove()


def test_who_died_before_he_had_locked_is_swept_in_the_end(tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.mkdir()
    (half / "new").touch()
    other = tmp_path / "of somebody"
    other.mkdir()
    (other / "file").touch()
    RunDirectory(tmp_path).remove()
    assert half.exists()
    for path in (half, other):
        os.utime(path, (0, 0))
    RunDirectory(tmp_path).remove()
    assert [path.name for path in tmp_path.iterdir()] == ["of somebody"]


def test_what_others_could_have_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d"
    assert private(path) == private(path) == path
    for mode in (0o755, 0o701, 0o770):
        path.chmod(mode)
        with pytest.raises(ElsewhereError, match="not a private directory of ours"):
            private(path)
    path.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ElsewhereError, match="not a private directory"):
        private(link)
    file = tmp_path / "file"
    file.touch(0o600)
    with pytest.raises(ElsewhereError, match="not a private directory"):
        private(file)
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(ElsewhereError, match="not a private directory"):
        private(path)


def test_a_place_where_nothing_can_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(ElsewhereError, match="cannot make the directory"):
        private(tmp_path / "none" / "d")
