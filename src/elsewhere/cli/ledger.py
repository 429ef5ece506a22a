"""``elsewhere ledger``: what a gateway has written down, looked at from outside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from jupyter_core.paths import jupyter_data_dir

from elsewhere.errors import ElsewhereError


@click.group("ledger")
def command() -> None:
    """Check or export the ledger of a gateway. Changes nothing, and works while the gateway runs.

    \b
    Examples:
      elsewhere ledger check
      elsewhere ledger export --output kernels.json
    """


def _default_directory() -> str:
    return os.path.join(jupyter_data_dir(), "elsewhere-gateway")


gateway_directory: Callable[..., Any] = click.option(
    "--data-directory",
    type=click.Path(path_type=Path),
    default=_default_directory,
    help="The gateway's; default: that of `elsewhere serve`.",
)


@command.command("check")
@gateway_directory
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def check(data_directory: Path, as_json: bool) -> None:
    """Tell whether the ledger is sound; exit code 1 if it is not."""
    inspection = _inspection()
    findings = inspection.check(data_directory)
    if as_json:
        click.echo(json.dumps(asdict(findings), indent=2))
    else:
        used = "in use by a gateway" if findings.in_use else "not in use"
        click.echo(f"{findings.path}: schema {findings.schema}, {used}")
        click.echo(f"{findings.kernels} kernels, of which {findings.pending} had no agent yet")
        for problem in findings.problems:
            click.echo(problem, err=True)
    if findings.problems:
        raise click.exceptions.Exit(1)


@command.command("export")
@gateway_directory
@click.option("--output", type=click.Path(path_type=Path), help="A file to make; default: standard output.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def export(data_directory: Path, output: Path | None, force: bool) -> None:
    """Print the kernels and sessions as JSON, without secrets: of an environment only the names."""
    text = json.dumps(_inspection().exported(data_directory), indent=2) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(output, flags, 0o600), "w", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError as error:
        raise ElsewhereError(f"{output} is there already; --force writes over it") from error


def _inspection() -> Any:
    try:
        from elsewhere.gateway import inspection
    except ModuleNotFoundError as error:
        raise ElsewhereError(f"the ledger needs {error.name}: pip install 'elsewhere[gateway]'") from error
    return inspection
