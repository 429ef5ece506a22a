"""``elsewhere bench``: how fast a Jupyter kernels API is, alone or in turn with another."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from functools import partial
from statistics import median

import click
from rich.console import Console
from rich.table import Table

from elsewhere.cli.client import Client, find
from elsewhere.errors import ElsewhereError


@dataclass
class Row:
    """One figure of each server: a value for each round."""

    name: str
    unit: str
    values: list[list[float]]


@click.command("bench")
@click.argument("url", required=False)
@click.option(
    "--token", envvar="ELSEWHERE_TOKEN", help="Its token; default: that of the gateway that runs here."
)
@click.option("--against", metavar="URL", help="Another server, measured in turn with the first.")
@click.option("--against-token", metavar="TOKEN", help="The token of that one.")
@click.option("--spec", default="python3", show_default=True, help="Kernelspec of an ipykernel on the first.")
@click.option("--against-spec", help="Kernelspec on the other; default: the same.")
@click.option("--ca", envvar="ELSEWHERE_CA", help="File with the authority of their certificates.")
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(1), help="Kernels for each server."
)
@click.option("--quick", is_flag=True, help="Little of everything: to see that it works, not to quote.")
@click.option("--legacy", is_flag=True, help="The websocket protocol in JSON, instead of v1.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def command(
    url: str | None,
    token: str | None,
    against: str | None,
    against_token: str | None,
    spec: str,
    against_spec: str | None,
    ca: str | None,
    rounds: int,
    quick: bool,
    legacy: bool,
    as_json: bool,
) -> None:
    """Measure a gateway, or any server with Jupyter's kernels API, as a front end sees it.

    URL is the server; without it, the gateway that runs here as you. With --against another server is
    measured in turn with it, and the ratios are the medians of what the rounds say, so what else the
    machines do falls on both. Kernels are started and ended; those that run are left alone.

    \b
    Examples:
      elsewhere bench --quick
      elsewhere bench http://localhost:8888 --token T --against http://localhost:8889 --against-token U
    """
    try:
        from elsewhere.cli.benchmark import session
    except ModuleNotFoundError as error:
        raise ElsewhereError(
            f"the measurements need {error.name}: pip install 'elsewhere[gateway]'"
        ) from error
    servers = [(Client(find(url, token), ca=ca), spec)]
    if against:
        servers.append((Client(find(against, against_token), ca=ca), against_spec or spec))
    effort = session.QUICK if quick else session.FULL
    rows: dict[str, Row] = {}

    def take(index: int, name: str, unit: str, value: float) -> None:
        rows.setdefault(name, Row(name, unit, [[] for _ in servers])).values[index].append(value)

    for number in range(rounds):
        order = range(len(servers)) if number % 2 == 0 else reversed(range(len(servers)))
        for index in order:
            client, name = servers[index]
            click.echo(f"round {number + 1} of {rounds}: {client.target.url}", err=True)
            make = partial(session.Session, client, name, v1=not legacy)
            for figure in itertools.chain(session.life(make(), effort), session.together(make, effort)):
                take(index, *figure)
    urls = [client.target.url for client, _ in servers]
    (_print_json if as_json else _print)(urls, list(rows.values()))


def _print(urls: list[str], rows: list[Row]) -> None:
    table = Table("figure", *urls, *(["ratio"] if len(urls) > 1 else []))
    for row in rows:
        cells = [f"{median(values):.4g} {row.unit}" for values in row.values]
        table.add_row(row.name, *cells, *([_ratio(row)] if len(urls) > 1 else []))
    Console().print(table)


def _ratio(row: Row) -> str:
    ratios = [one / other for one, other in zip(*row.values, strict=True) if other]
    return f"{median(ratios):.2f} × ({min(ratios):.2f} … {max(ratios):.2f})" if ratios else "–"


def _print_json(urls: list[str], rows: list[Row]) -> None:
    figures = [
        {"name": row.name, "unit": row.unit, "values": dict(zip(urls, row.values, strict=True))}
        for row in rows
    ]
    click.echo(json.dumps(figures, indent=2, ensure_ascii=False))
