"""``elsewhere laws`` as people type it."""

from __future__ import annotations

import subprocess

import pytest

from gateway_kit import PROGRAM
from site_kit import PATIENCE, Site


@pytest.fixture(autouse=True)
def mine(site: Site) -> None:
    """A cluster on the embedded manager, whose jobs the site can see."""
    site.toml(f'[clusters.mine]\ntype = "local"\ndirectory = "{site.jobs}"\n')


def laws(*argv: str, expect: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [PROGRAM, "laws", *argv], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def test_each_law_is_a_line_with_its_verdict() -> None:
    lines = laws("mine", "-k", "seen_with_its_id or down or starts_and_answers")[0].splitlines()
    assert [line[:10].rstrip() for line in lines] == ["kept", "not tried", "kept", "2 kept, 0"]
    assert "a submitted job is seen with its id and host" in lines[0]
    assert "`unreachable`" in lines[1]
    assert lines[-1] == "2 kept, 0 broken, 1 not tried"


def test_what_is_known_of_the_manager_unlocks_a_law() -> None:
    told, _ = laws("mine", "-k", "impossible", "--impossible", "python=/no/such/interpreter")
    assert "1 kept, 0 broken, 0 not tried" in told


def test_a_broken_law_is_told_with_what_it_promises() -> None:
    told, _ = laws("mine", "-k", "impossible", "--impossible", "nice=3", expect=1)
    assert "broken    what is impossible" in told
    assert "A no is Rejected, and says why" in told
    assert "0 kept, 1 broken, 0 not tried" in told


@pytest.mark.parametrize(
    ("argv", "expect", "word"),
    [
        (("min",), 1, "did you mean `mine`?"),
        (("mine", "-o", "nic=3"), 1, "did you mean `nice`?"),
        (("mine", "--impossible", "nic=3"), 1, "did you mean `nice`?"),
        (("mine", "--unreachable", "directry=/x"), 1, "did you mean `directory`?"),
        (("mine", "--impossible", "nice"), 2, "key=value"),
        (("mine", "-k", "no_such_law"), 1, "no law's name matches 'no_such_law'"),
    ],
)
def test_what_is_wrong_is_told(argv: tuple[str, ...], expect: int, word: str) -> None:
    assert word in laws(*argv, expect=expect)[1]
