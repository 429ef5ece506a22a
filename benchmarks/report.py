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


def document(figures: Sequence[Figure], pairs: str, path: Path) -> None:
    """Put the table between its marks in a page of the documentation; the rest of it stays."""
    page = path.read_text(encoding="utf-8") if path.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{path} has no lines {BEGIN!r} and {END!r}, between which the table goes")
    lines = [f"Measured on {machine()}; {pairs}.", "", _row(HEADINGS), _row(["---"] * len(HEADINGS))]
    lines += [_row(figure.cells) for figure in figures]
    path.write_text("\n".join([before + BEGIN, *lines, END + after]), encoding="utf-8")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
