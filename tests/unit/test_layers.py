"""The agent stands alone: the contracts between the other layers are checked by import-linter."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import elsewhere.agent

AGENT = Path(elsewhere.agent.__file__).parent
NEWER_THAN_3_8 = {"graphlib", "zoneinfo", "tomllib", "annotationlib", "compression"}
GONE_SINCE_3_8 = {"asynchat", "asyncore", "cgi", "crypt", "distutils", "imp", "pipes", "smtpd", "telnetlib"}


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", sorted(AGENT.rglob("*.py")), ids=lambda path: str(path.relative_to(AGENT)))
def test_the_agent_imports_the_standard_library_only(path: Path) -> None:
    allowed = sys.stdlib_module_names - NEWER_THAN_3_8 - GONE_SINCE_3_8
    depth = len(path.relative_to(AGENT).parts)
    for name in _imported(ast.parse(path.read_text(encoding="utf-8"))):
        if name.startswith("."):
            assert len(name) <= depth, f"{path.name} imports from outside the agent: {name}"
        elif name.partition(".")[0] == "elsewhere":
            assert name.startswith("elsewhere.agent"), f"{path.name} imports {name}"
        else:
            assert name.partition(".")[0] in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", sorted(AGENT.rglob("*.py")), ids=lambda path: str(path.relative_to(AGENT)))
def test_the_agent_is_written_in_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
