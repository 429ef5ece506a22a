"""The tables of docs/settings.md say what the models say. Run as a program, this file writes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from elsewhere.plugins import backend_names, load_backend
from elsewhere.settings import LaunchSettings, Limits, Policy, Switchboard

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
_TABLE = re.compile(r"(?<=<!-- keys: )([\w ]+)( -->\n)(.*?)(?=<!-- end -->)", re.DOTALL)
_WORDS = {str: "text", Path: "path", int: "whole number", float: "number", bool: "true or false"}
_BOUNDS = {"gt": "more than", "ge": "at least", "le": "at most", "lt": "less than"}


def models() -> dict[str, type[BaseModel]]:
    """Return what has a table, by its name on the page."""
    found: dict[str, type[BaseModel]] = {
        "switchboard": Switchboard,
        "limits": Limits,
        "policy": Policy,
        "launch": LaunchSettings,
    }
    for name in backend_names():
        backend = load_backend(name, name)
        found |= {f"{name} config": backend.Config, f"{name} options": backend.Options}
    return found


def kind(annotation: Any) -> str:
    """Say a type in words."""
    members = get_args(annotation)
    if get_origin(annotation) is Literal:
        return " or ".join(f'`"{member}"`' for member in members)
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(kind(member) for member in members if member is not NoneType)
    if get_origin(annotation) is tuple:
        return f"list of {kind(members[0])}s"
    return _WORDS[annotation]


def _plain(text: str | None) -> str:
    return (text or "").replace("<", "&lt;").replace("|", "\\|")


def table(model: type[BaseModel]) -> str:
    """Return the table of a model's keys, in Markdown."""
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        bounds = [
            f"{words} {getattr(bound, attribute):g}"
            for bound in field.metadata
            for attribute, words in _BOUNDS.items()
            if hasattr(bound, attribute)
        ]
        value = ", ".join([kind(field.annotation), *bounds])
        told = field.default is None or field.default_factory is not None  # in the description, if it matters
        default = "" if told else f"`{json.dumps(field.default)}`"
        lines.append(f"| `{name}` | {value} | {default} | {_plain(field.description)} |")
    return "\n".join(lines) + "\n"


def rendered(page: str) -> str:
    """Return the page with its tables made anew."""
    known = models()
    return _TABLE.sub(lambda found: found[1] + found[2] + table(known[found[1]]), page)


def test_the_tables_are_those_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert rendered(page) == page


def test_every_model_has_its_table() -> None:
    shown = [found[1] for found in _TABLE.finditer(PAGE.read_text(encoding="utf-8"))]
    assert sorted(shown) == sorted(models())


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
