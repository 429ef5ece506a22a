"""``elsewhere specs``: the kernelspecs whose kernels run elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from jupyter_client.kernelspec import KernelSpecManager

from elsewhere.cli.derive import Wish, derive, install, kernels_directory
from elsewhere.cli.stanzas import pairs
from elsewhere.errors import SettingsError
from elsewhere.launch import transport
from elsewhere.settings import Settings, load, resolve

PROVISIONER = "elsewhere"


@click.group("specs")
def command() -> None:
    """List and add the kernelspecs whose kernels run elsewhere."""


@dataclass(frozen=True)
class Row:
    """What is told of one kernelspec; ``problem`` is why it cannot be used, if so."""

    name: str
    display_name: str = ""
    cluster: str = ""
    backend: str = ""
    transport: str = ""
    resource_dir: str = ""
    problem: str | None = None


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, for programs.")
def list_specs(as_json: bool) -> None:
    """List the kernelspecs that use elsewhere, and whether each can be used.

    \b
    Examples:
      elsewhere specs list
      elsewhere specs list --json | jq -r '.[].name'
    """
    rows = _rows()
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    elif not rows:
        click.echo("No kernelspec uses elsewhere yet. Add one: elsewhere specs add local", err=True)
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        _print_plain(rows)


def _rows() -> list[Row]:
    settings: Settings | SettingsError
    try:
        settings = load()
    except SettingsError as error:
        settings = error
    rows = (
        _row(name, folder, settings)
        for name, folder in sorted(KernelSpecManager().find_kernel_specs().items())
    )
    return [row for row in rows if row]


def _row(name: str, folder: str, settings: Settings | SettingsError) -> Row | None:
    """Return None for a kernelspec that is not ours; one that cannot be read may be, so it is told."""
    file = Path(folder, "kernel.json")
    if not file.exists():
        return None  # ipykernel's own, made up by jupyter_client
    try:
        spec = json.loads(file.read_text(encoding="utf-8"))
        provisioner = spec.get("metadata", {}).get("kernel_provisioner", {})
        if provisioner.get("provisioner_name") != PROVISIONER:
            return None
        display_name, argv = str(spec.get("display_name", "")), [str(word) for word in spec["argv"]]
    except OSError as error:
        return Row(name, resource_dir=folder, problem=f"{file}: cannot be read: {error.strerror}")
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        return Row(
            name, resource_dir=folder, problem=f"{file}: is no kernelspec: {type(error).__name__}: {error}"
        )
    stanza = provisioner.get("config", {})
    try:
        if isinstance(settings, SettingsError):
            raise settings
        found = resolve(stanza, settings, f"kernelspec {name!r}")
    except SettingsError as error:
        wanted = (
            {key: str(stanza.get(key, "")) for key in ("cluster", "backend")}
            if isinstance(stanza, dict)
            else {}
        )
        return Row(name, display_name, **wanted, resource_dir=folder, problem=str(error))
    cluster = "" if "#" in found.cluster else found.cluster
    return Row(name, display_name, cluster, found.backend_name, transport(argv, found.launch), folder)


_HEADS = ("name", "display name", "cluster", "backend", "transport", "status")


def _cells(row: Row) -> tuple[str, ...]:
    return (row.name, row.display_name, row.cluster or "-", row.backend or "-", row.transport or "-")


def _print_table(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*_HEADS)
    for row in rows:
        status = Text(row.problem, style="red") if row.problem else Text("ok", style="green")
        table.add_row(*(Text(cell) for cell in _cells(row)), status)
    Console().print(table)


def _print_plain(rows: Sequence[Row]) -> None:
    lines = [_HEADS, *((*_cells(row), (row.problem or "ok").replace("\n", "; ")) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADS) - 1)]
    for line in lines:
        click.echo(
            "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]])
        )


@command.command("add")
@click.argument("where", metavar="WHERE")
@click.option(
    "--from", "source", default="python3", show_default=True, help="Installed kernelspec to derive from."
)
@click.option("--name", help="Name of the new kernelspec; default: FROM-WHERE.")
@click.option("--display-name", help="Name shown to people; default: that of FROM, and WHERE in brackets.")
@click.option(
    "-o", "options", metavar="KEY=VALUE", multiple=True, callback=pairs, help="A launch option; repeatable."
)
@click.option(
    "--env", metavar="KEY=VALUE", multiple=True, callback=pairs, help="A variable of the kernel; repeatable."
)
@click.option("--user", "place", flag_value="user", help="Install for this user.")
@click.option(
    "--sys-prefix", "place", flag_value="sys-prefix", help="Install into this Python's environment."
)
@click.option(
    "--prefix", type=click.Path(file_okay=False), help="Install below this directory's share/jupyter/kernels."
)
@click.option("--replace", is_flag=True, help="Replace a kernelspec of the same name.")
def add(
    where: str,
    source: str,
    name: str | None,
    display_name: str | None,
    options: dict[str, str],
    env: dict[str, str],
    place: str | None,
    prefix: str | None,
    replace: bool,
) -> None:
    """Derive a kernelspec whose kernels run elsewhere from an installed one.

    WHERE is a cluster of elsewhere.toml, or a backend such as `local`. Values of options are text
    where text is allowed, else JSON. Without --user, --sys-prefix or --prefix the new kernelspec goes
    into this Python's environment if it is a virtual one, else to the user's.

    \b
    Examples:
      elsewhere specs add local
      elsewhere specs add local --from ir --name ir-batch --display-name "R (batch)"
      elsewhere specs add local -o start_timeout=120 -o 'pass_env=["HF_*"]'
      elsewhere specs add local --env OMP_NUM_THREADS=4 --replace
    """
    if place and prefix:
        raise click.UsageError("--prefix cannot be used together with --user or --sys-prefix")
    wish = Wish(where, source, name or f"{source}-{where}", display_name, options, env)
    folder = kernels_directory(place, prefix)
    derived = derive(wish, load())
    installed = install(derived, folder / wish.name.lower(), replace=replace)
    click.echo(f"added the kernelspec {wish.name.lower()} in {installed}")
    found = KernelSpecManager().find_kernel_specs().get(wish.name.lower())
    if found is None:
        click.echo(
            f"note: {folder} is not on Jupyter's path (jupyter --paths), so Jupyter does not see it", err=True
        )
    elif Path(found).resolve() != installed.resolve():
        click.echo(f"note: Jupyter finds another one of that name first, in {found}", err=True)
