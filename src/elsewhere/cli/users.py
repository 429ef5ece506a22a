"""``elsewhere users``: who may use a gateway, each with tokens of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from elsewhere.cli.ledger import gateway_directory
from elsewhere.errors import ElsewhereError


@click.group("users")
def command() -> None:
    """Add, list and revoke the people who may use a gateway. A running gateway knows at once.

    Without any, whoever has the gateway's own token, which is told at its start, is its one person.

    \b
    Examples:
      elsewhere users add ada
      elsewhere users add hub --role service --acts-for '*'
      elsewhere users revoke ada
    """


@command.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(["user", "service", "admin"]), help="Default: user, or as before.")
@click.option("--group", "groups", multiple=True, help="A group that they belong to; as often as need be.")
@click.option(
    "--acts-for",
    multiple=True,
    metavar="PATTERN",
    help="Whom a service may start kernels for, as in 'team-*'.",
)
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Days until the token expires.")
@gateway_directory
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def add(
    name: str,
    role: str | None,
    groups: tuple[str, ...],
    acts_for: tuple[str, ...],
    days: float | None,
    data_directory: Path,
    as_json: bool,
) -> None:
    """Give a person a token, which is printed once and kept nowhere.

    Of somebody who is there already, the older tokens stay as they are.
    """
    people = _people(data_directory)
    token = people.add(
        name,
        role=_role(role) if role is not None else None,
        groups=groups or None,
        acts_for=acts_for or None,
        days=days,
    )
    if as_json:
        click.echo(json.dumps({"name": name, "token": token}))
    else:
        click.echo(f"The token of {name}, which is shown only now:", err=True)
        click.echo(token)


@command.command("list")
@gateway_directory
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def show(data_directory: Path, as_json: bool) -> None:
    """List everybody, with the ids of their tokens."""
    everybody = _people(data_directory).all()
    if as_json:
        click.echo(json.dumps([_without_hashes(person) for person in everybody], indent=2))
        return
    if not everybody:
        click.echo("Nobody is known; the gateway's own token is its only one.", err=True)
        return
    table = Table("name", "role", "groups", "acts for", "tokens", box=None, header_style="bold")
    for person in everybody:
        tokens = "\n".join(f"{token.id} {_validity(token)}" for token in person.tokens)
        table.add_row(
            person.name, person.role.value, " ".join(person.groups), " ".join(person.acts_for), tokens
        )
    Console().print(table)


@command.command("revoke")
@click.argument("name")
@click.option("--token", "token_id", metavar="ID", help="One token of theirs; default: all, and the person.")
@gateway_directory
def revoke(name: str, token_id: str | None, data_directory: Path) -> None:
    """Forget a person, or one of their tokens. Their kernels run on, and belong to that name still."""
    count = _people(data_directory).revoke(name, token_id)
    click.echo(f"{count} token(s) of {name} are good no longer", err=True)


def _without_hashes(person: Any) -> dict[str, Any]:
    told: dict[str, Any] = person.model_dump(mode="json")
    for token in told["tokens"]:
        del token["hash"]
    return told


def _validity(token: Any) -> str:
    if token.expires is None:
        return "for good"
    return f"{'expired' if token.expired else 'until'} {token.expires:%Y-%m-%d %H:%M}"


def _role(role: str) -> Any:
    from elsewhere.gateway.accounts import Role

    return Role(role)


def _people(directory: Path) -> Any:
    try:
        from elsewhere.gateway.people import People
    except ModuleNotFoundError as error:
        raise ElsewhereError(f"users need {error.name}: pip install 'elsewhere[gateway]'") from error
    return People(directory)
