"""``elsewhere new-backend``: the skeleton of a package with a backend of one's own."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from elsewhere.errors import ElsewhereError
from elsewhere.plugins import backend_names

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")


@click.command("new-backend")
@click.argument("name", metavar="NAME")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Where the package is written; default: elsewhere-NAME here.",
)
def command(name: str, directory: Path | None) -> None:
    """Write the skeleton of a package with a backend for another manager.

    NAME is what people will write as `type` in elsewhere.toml. The package installs, its backend is found by
    its entry point, and its first law passes; the others are skipped until you write what they need.
    docs/write-a-backend.md leads through all of it.

    \b
    Examples:
      elsewhere new-backend nomad
      cd elsewhere-nomad && pip install -e '.[test]' && pytest
    """
    if not _NAME.match(name):
        raise ElsewhereError(
            f"{name!r} is no name for a backend: it has lower-case letters, digits and single '-', "
            "and begins with a letter"
        )
    if name in backend_names():
        raise ElsewhereError(f"a backend {name!r} is installed already; choose another name")
    target = directory or Path(f"elsewhere-{name}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ElsewhereError(f"{target} is there already; remove it, or name another --directory")
    for path, content in _package(name).items():
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content, encoding="utf-8")
        click.echo(f"  {place}")
    click.echo(f"Next: cd {target} && pip install -e '.[test]' && pytest")


def _package(name: str) -> dict[str, str]:
    """Return the files of the package, by their paths in it."""
    module = f"elsewhere_{name.replace('-', '_')}"
    words = {
        "name": name,
        "module": module,
        "prefix": "".join(word.capitalize() for word in name.split("-")),
    }
    source = files("elsewhere.cli") / "skeleton"
    return {
        path: Template((source / f"{template}.template").read_text(encoding="utf-8")).substitute(words)
        for path, template in {
            "pyproject.toml": "pyproject.toml",
            "README.md": "README.md",
            f"src/{module}/__init__.py": "backend.py",
            f"src/{module}/py.typed": "py.typed",
            "tests/test_laws.py": "test_laws.py",
        }.items()
    }
