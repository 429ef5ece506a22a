"""What the documentation shows is run, block by block, as CONTRIBUTING.md says ("Documentation")."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from elsewhere import settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CHECKED = ("console", "python", "output", "toml", "json")
SHOWN = ("sh", "text")
LONGEST = 400.0
"""Seconds that one command of a page may take on a machine with much else to do."""
_FENCED = re.compile(r"^```(\w*)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]+\]\((?!https?:)([^)#]+)")


class Block(NamedTuple):
    """One fenced block: its language, the file it belongs to, its text, and the page's line it begins at."""

    language: str
    path: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2] or "", found[3], text.count("\n", 0, found.start()) + 2)
        for found in _FENCED.finditer(text)
    ]


def same(expected: str, printed: str) -> bool:
    """Whether this was printed: ``…`` stands for anything in a line, alone on a line for any lines."""
    lines = [".*".join(map(re.escape, line.split("…"))) for line in expected.rstrip("\n").split("\n")]
    pattern = "\n".join("(?s:.*?)" if line == ".*" else line for line in lines)
    printed = "\n".join(line.rstrip() for line in printed.rstrip().split("\n"))
    return re.fullmatch(pattern, printed) is not None


def names(methods: str) -> set[str]:
    """Return the names of some indented methods."""
    return set(re.findall(r"^    (?:async )?def (\w+)", methods, re.MULTILINE))


def without(module: str, methods: set[str]) -> str:
    """Return a module without these methods of its last class."""
    *_, last = ast.parse(module).body
    assert isinstance(last, ast.ClassDef)
    lines = module.splitlines(keepends=True)
    for member in reversed(last.body):
        if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and member.name in methods:
            del lines[member.lineno - 1 : member.end_lineno]
    return "".join(lines)


class Reader:
    """Somebody who does what a page says, in an account of their own."""

    def __init__(self, account: Path) -> None:
        self.account = account
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
        self.environ = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
            "XDG_RUNTIME_DIR": f"{account}/run",
            "JUPYTER_PREFER_ENV_PATH": "0",
            "JUPYTER_DATA_DIR": f"{account}/data",
            "JUPYTER_CONFIG_DIR": f"{account}/config",
            "JUPYTER_RUNTIME_DIR": f"{account}/runtime",
            "IPYTHONDIR": f"{account}/ipython",
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, argv: list[str], *, with_errors: bool) -> str:
        """Run a program and return what it printed."""
        errors = subprocess.STDOUT if with_errors else None
        done = subprocess.run(
            argv,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            timeout=LONGEST,
            env=self.environ,
            cwd=self.account,
        )
        assert with_errors or done.returncode == 0, f"exit code {done.returncode}"
        return done.stdout

    def follow(self, page: Path) -> None:
        """Do everything on the page, in order; fail where something else happens than it says."""
        printed: str | None = None
        for block in blocks(page):
            place = f"{page.name}:{block.line}"
            if block.path:
                self._write(Path(self.account, block.path), block.text)
            elif block.language == "console":
                self._console(block.text, place)
            elif block.language == "python":
                printed = self.run([sys.executable, "-c", block.text], with_errors=False)
            elif block.language == "output":
                assert printed is not None, f"{place}: no python block is before it"
                assert same(block.text, printed), (
                    f"{place}: the page says\n{block.text}but printed was\n{printed}"
                )
            elif block.language == "toml":
                self._toml(block.text)
            elif block.language == "json":
                provisioner = json.loads(block.text)["metadata"]["kernel_provisioner"]
                assert provisioner["provisioner_name"] == "elsewhere"
                settings.resolve(provisioner["config"], settings.Settings(), place)

    def _write(self, path: Path, text: str) -> None:
        """Write a file, or what is indented into the class at its end, in place of methods of these names."""
        if text.startswith("    "):
            text = without(path.read_text(encoding="utf-8"), names(text)).rstrip("\n") + "\n\n" + text
        path.write_text(text, encoding="utf-8")

    def _console(self, text: str, place: str) -> None:
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            printed = self.run(["/bin/bash", "-c", command], with_errors=True)
            assert same(expected, printed), (
                f"{place}: $ {command}\nthe page says\n{expected}but printed was\n{printed}"
            )

    def _toml(self, text: str) -> None:
        file = self.account / "config" / settings.FILE
        file.write_text(text, encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ELSEWHERE_CONFIG", str(file))
            loaded = settings.load()
        for name in loaded.clusters:
            settings.resolve({"cluster": name}, loaded, name)


@pytest.fixture
def reader() -> Iterator[Reader]:
    """A reader; the path of the account is short, for sockets live below it."""
    account = Path(tempfile.mkdtemp(prefix="ew-", dir="/tmp"))
    for name in ("run", "data", "config", "runtime", "ipython"):
        Path(account, name).mkdir(mode=0o700)
    yield Reader(account)
    shutil.rmtree(account)


@pytest.mark.timeout(3 * LONGEST)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_can_be_followed(page: Path, reader: Reader) -> None:
    reader.follow(page)
    for written in reader.account.glob("elsewhere-*/src/*/__init__.py"):
        assert len(written.read_text().splitlines()) < 100, "a new manager takes under 100 lines"
    assert list(reader.account.glob("run/elsewhere/local/*")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_no_block_of_unknown_kind_and_no_dead_link(page: Path) -> None:
    for block in blocks(page):
        assert block.language in CHECKED + SHOWN, f"{page.name}:{block.line}: {block.language!r}"
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize(
    ("expected", "printed", "is_same"),
    [
        ("a … c\n", "a b c\n", True),
        ("a … c\n", "a b\nc\n", False),
        ("a\n…\nc\n", "a\nb\nb\nc\n", True),
        ("a\n", "a\nb\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_what_was_printed_is_compared_as_contributing_says(
    expected: str, printed: str, is_same: bool
) -> None:
    assert same(expected, printed) is is_same
