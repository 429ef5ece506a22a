"""Marks: what was stored is there again, whoever was killed, and never for somebody else."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from elsewhere.gateway import marks as table
from elsewhere.gateway.marks import Marks


@pytest.fixture
def marks(tmp_path: Path) -> Iterator[Marks]:
    one = Marks(tmp_path / "marks")
    yield one
    one.close()


def test_a_new_one_begins_at_nothing_and_goes_its_own_way(marks: Marks) -> None:
    one, other = marks.of("kernel", 1, "session"), marks.of("kernel", 2, "session")
    one.intend(7)
    one.do(6)
    assert (one.intended, one.done) == (7, 6)
    assert (other.intended, other.done) == (0, 0)
    assert marks.of("kernel", 1, "session").done == 6


def test_it_is_there_again_after_a_kill(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from elsewhere.gateway.marks import Marks\n"
        "mark = Marks(Path(sys.argv[1])).of('kernel', 1, 'session')\n"
        "mark.do(2**40); mark.intend(2**40 + 1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "marks"
    assert subprocess.run([sys.executable, "-c", program, str(path)]).returncode == -signal.SIGKILL
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    marks = Marks(path)
    mark = marks.of("kernel", 1, "session")
    assert (mark.done, mark.intended) == (2**40, 2**40 + 1)
    marks.close()


def test_what_is_forgotten_begins_anew_and_cannot_be_written_any_more(marks: Marks) -> None:
    old, kept = marks.of("gone", 1, "a"), marks.of("kept", 1, "a")
    kept.do(3)
    old.do(5)
    marks.forget("gone")
    marks.forget("never known")
    new = marks.of("another", 1, "a")
    old.do(9)
    assert (new.done, old.done, kept.done) == (0, 0, 3)
    assert marks.of("gone", 1, "a").done == 0


def test_more_than_fit_at_first(tmp_path: Path) -> None:
    path = tmp_path / "marks"
    marks = Marks(path)
    size = path.stat().st_size
    for number in range(1000):
        marks.of(f"kernel {number}", 1, "a").do(number)
    assert path.stat().st_size > size
    marks.close()
    marks = Marks(path)
    assert [marks.of(f"kernel {number}", 1, "a").done for number in range(1000)] == list(range(1000))
    marks.close()


def test_the_oldest_front_end_of_a_kernel_gives_way(marks: Marks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "SESSIONS_OF_A_KERNEL", 3)
    for number in range(4):
        marks.of("kernel", 1, f"{number}").do(number + 1)
    assert [marks.of("kernel", 1, f"{number}").done for number in (1, 2, 3)] == [2, 3, 4]
    assert marks.of("kernel", 1, "0").done == 0


def test_the_order_of_age_is_there_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "SESSIONS_OF_A_KERNEL", 3)
    marks = Marks(tmp_path / "marks")
    for name in ("old", "middle", "new"):
        marks.of("kernel", 1, name).do(1)
    marks.close()
    marks = Marks(tmp_path / "marks")
    marks.of("kernel", 1, "newest")
    assert [marks.of("kernel", 1, name).done for name in ("middle", "new")] == [1, 1]
    marks.close()


@pytest.mark.parametrize("content", [b"", b"something else", os.urandom(100_000)])
def test_a_file_that_is_no_table_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "marks"
    path.write_bytes(content)
    marks = Marks(path)
    assert marks.of("kernel", 1, "session").done == 0
    marks.close()


def test_once_closed_nothing_is_stored_and_nothing_breaks(marks: Marks) -> None:
    mark = marks.of("kernel", 1, "session")
    marks.close()
    marks.close()
    mark.do(3)
    assert mark.done == 0
