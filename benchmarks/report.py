"""Where the figures go: a table on the terminal, raw numbers as JSON, a table in the documentation."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from figures import Figure
from rich.console import Console
from rich.table import Table

HEADINGS = ("figure", "stock", "ours", "ours against stock (quartiles)", "goal", "")
BEGIN, END = "<!-- figures: written by `make bench` -->", "<!-- end of figures -->"
PACKAGES = ("jupyter_client", "ipykernel", "pyzmq")


def machine() -> str:
    """Describe what was measured on, in one sentence."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {packages}"


def show(figures: Sequence[Figure], console: Console) -> None:
    """Print the table."""
    table = Table(*HEADINGS, caption=machine())
    for figure in figures:
        style = {None: "dim", True: "green", False: "bold red"}[figure.reached]
        *cells, reached = figure.cells
        table.add_row(*cells, f"[{style}]{reached}[/]")
    console.print(table)


def store(figures: Sequence[Figure], path: Path) -> None:
    """Write every single measurement, for whoever wants other statistics."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = {
        "machine": machine(),
        "figures": [
            {
                "name": figure.name,
                "unit": figure.unit,
                "goal": figure.goal,
                "reached": figure.reached,
                "stock": figure.stock,
                "ours": figure.ours,
            }
            for figure in figures
        ],
    }
    path.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


def document(figures: Sequence[Figure], pairs: str, path: Path, begin: str = BEGIN, end: str = END) -> None:
    """Put the table of figures between its marks in a page of the documentation."""
    lines = [f"Measured on {machine()}; {pairs}.", "", row(HEADINGS), row(["---"] * len(HEADINGS))]
    insert(path, begin, end, [*lines, *(row(figure.cells) for figure in figures)])


def insert(path: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Put lines between two marks of a page; the rest of it stays. Raises ValueError without the marks."""
    before, mark, rest = path.read_text(encoding="utf-8").partition(begin)
    _, last, after = rest.partition(end)
    if not mark or not last:
        raise ValueError(f"{path} has no lines {begin!r} and {end!r}, between which the table goes")
    path.write_text("\n".join([before + begin, *lines, end + after]), encoding="utf-8")


def row(cells: Sequence[str]) -> str:
    """Return one row of a table."""
    return "| " + " | ".join(cells) + " |"
