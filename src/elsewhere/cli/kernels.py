"""``elsewhere kernels``: the kernels of a running gateway."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from functools import wraps
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from elsewhere.cli.client import Client, GatewayUnusable, NotThere, find
from elsewhere.errors import near_miss

AT_ONCE = 16
COLUMNS = ("id", "name", "state", "cluster", "host", "job_id", "connections", "last_activity", "reason")

Detail = Mapping[str, Any]


@click.group("kernels")
def command() -> None:
    """List, show and end the kernels of a running gateway.

    The gateway is the one that runs on this machine as you, or --url and --token, or ELSEWHERE_URL and
    ELSEWHERE_TOKEN. A kernel is named by its id, or by the beginning of it.

    \b
    Examples:
      elsewhere kernels list
      elsewhere kernels logs 3f2a
      elsewhere kernels stop 3f2a 77b1
    """


def _with_gateway(function: Callable[..., None]) -> Callable[..., None]:
    @click.option("--url", envvar="ELSEWHERE_URL", help="The gateway; default: the one that runs here.")
    @click.option("--token", envvar="ELSEWHERE_TOKEN", help="Its token; default: that of the one found.")
    @click.option("--ca", envvar="ELSEWHERE_CA", help="File with the authority of its certificate.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    @wraps(function)
    def wrapped(
        *args: Any, url: str | None, token: str | None, ca: str | None, as_json: bool, **kwargs: Any
    ) -> None:
        function(Client(find(url, token), ca=ca), as_json, *args, **kwargs)

    return wrapped


@command.command("list")
@_with_gateway
def list_kernels(client: Client, as_json: bool) -> None:
    """List the kernels, and where each of them runs."""
    details = _details(client, client.kernel_ids())
    if as_json:
        click.echo(json.dumps(details, indent=2))
    elif not details:
        click.echo(f"The gateway at {client.target.url} runs no kernels.", err=True)
    elif sys.stdout.isatty():
        table = Table(*(name.replace("_", " ") for name in COLUMNS), box=None, header_style="bold")
        for detail in details:
            table.add_row(*map(Text, _row(detail)))
        Console().print(table)
    else:
        for detail in details:
            click.echo("\t".join(_row(detail)))


@command.command("show")
@click.argument("kernel")
@_with_gateway
def show(client: Client, as_json: bool, kernel: str) -> None:
    """Show all that is known of one kernel: where it runs, as what job, and how it came there."""
    detail = client.ask("GET", "api", "kernels", _whole_id(client, kernel))
    if as_json:
        click.echo(json.dumps(detail, indent=2))
        return
    for name, value in detail.items():
        if name != "steps" and value not in (None, "", []):
            click.echo(f"{name.replace('_', ' '):<16}{value}")
    begun: datetime | None = None
    for name, at in detail.get("steps", {}).items():
        moment = datetime.fromisoformat(at.replace("Z", "+00:00"))
        begun = begun or moment
        click.echo(f"  {(moment - begun).total_seconds():8.2f} s  {name}")


@command.command("logs")
@click.argument("kernel")
@click.option("--lines", default=20, show_default=True, type=click.IntRange(1, 10_000))
@_with_gateway
def logs(client: Client, as_json: bool, kernel: str, lines: int) -> None:
    """Print the last lines that the kernel's job has printed."""
    told = client.ask("GET", "api", "kernels", _whole_id(client, kernel), "logs", lines=str(lines))
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for line in told["lines"]:
        click.echo(line)


@command.command("stop")
@click.argument("kernels", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every kernel of the gateway.")
@click.option("--yes", is_flag=True, help="Do not ask before --all.")
@_with_gateway
def stop(client: Client, as_json: bool, kernels: Sequence[str], everything: bool, yes: bool) -> None:
    """End kernels and their jobs, many at a time."""
    if bool(kernels) == everything:
        raise click.UsageError("name kernels, or say --all")
    known = client.kernel_ids()
    if everything and known and not yes:
        click.confirm(f"End all {len(known)} kernels of {client.target.url}?", abort=True, err=True)
    wanted = known if everything else [_whole_id(client, kernel, known) for kernel in kernels]

    def end(kernel_id: str) -> str:
        try:
            client.ask("DELETE", "api", "kernels", kernel_id)
        except GatewayUnusable as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(AT_ONCE) as threads:
        problems = dict(zip(wanted, threads.map(end, wanted), strict=True))
    if as_json:
        click.echo(json.dumps([{"id": one, "problem": said or None} for one, said in problems.items()]))
    else:
        for one, said in problems.items():
            click.echo(f"{one}  {said or 'ended'}", err=bool(said))
    if any(problems.values()):
        raise click.exceptions.Exit(1)


@command.command("share")
@click.argument("kernel")
@click.argument("user")
@click.option("--read-only", is_flag=True, help="To look at only: not to execute, interrupt or restart.")
@click.option("--revoke", is_flag=True, help="No longer.")
@_with_gateway
def share(client: Client, as_json: bool, kernel: str, user: str, read_only: bool, revoke: bool) -> None:
    """Share a kernel with another user of the gateway."""
    if read_only and revoke:
        raise click.UsageError("--read-only and --revoke exclude each other")
    kernel_id = _whole_id(client, kernel)
    path = ("api", "kernels", kernel_id, "shares")
    if revoke:
        client.ask("DELETE", *path, user)
    else:
        client.ask("PUT", *path, user, body={"read_only": read_only})
    if as_json:
        click.echo(json.dumps(client.ask("GET", *path)))
    else:
        how = "no longer shared with" if revoke else "shown to" if read_only else "shared with"
        click.echo(f"{kernel_id}  {how} {user}")


@command.command("restart")
@click.argument("kernel")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is ready.")
@_with_gateway
def restart(client: Client, as_json: bool, kernel: str, no_wait: bool) -> None:
    """Restart a kernel in its job, and wait until it is ready."""
    kernel_id = _whole_id(client, kernel)
    detail = client.ask("POST", "api", "kernels", kernel_id, "restart")
    if not no_wait:
        for event in client.events("api", "kernels", kernel_id, "events"):
            if event.name == "end":
                raise GatewayUnusable(f"kernel {kernel_id} was ended meanwhile")
            detail = event.data
            if not as_json:
                click.echo(_change(detail), err=True)
            if detail["execution_state"] not in ("starting", "restarting"):
                break
    if as_json:
        click.echo(json.dumps(detail, indent=2))
    if detail["execution_state"] == "dead":
        raise GatewayUnusable(detail.get("reason") or f"kernel {kernel_id} is dead")


@command.command("watch")
@click.argument("kernel")
@_with_gateway
def watch(client: Client, as_json: bool, kernel: str) -> None:
    """Tell each change of a kernel until it is gone (or Ctrl-C)."""
    kernel_id = _whole_id(client, kernel)
    for event in client.events("api", "kernels", kernel_id, "events"):
        if event.name == "end":
            click.echo(json.dumps({"id": kernel_id, "state": "gone"}) if as_json else "gone")
            return
        click.echo(json.dumps(event.data) if as_json else _change(event.data))
    raise GatewayUnusable(f"the gateway at {client.target.url} has stopped; the kernel goes on")


def _details(client: Client, ids: Sequence[str]) -> list[Detail]:
    """Return the details of those that are still there."""

    def detail(kernel_id: str) -> Detail | None:
        try:
            found: Detail = client.ask("GET", "api", "kernels", kernel_id)
        except NotThere:
            return None
        return found

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return [one for one in threads.map(detail, ids) if one is not None]


def _whole_id(client: Client, beginning: str, known: Sequence[str] | None = None) -> str:
    """Return the id that begins so. Raises GatewayUnusable if it is none, or several."""
    ids = client.kernel_ids() if known is None else known
    found = [one for one in ids if one.startswith(beginning)] if beginning else []
    if beginning in found:
        return beginning
    if len(found) == 1:
        return found[0]
    if found:
        raise GatewayUnusable(f"several kernels begin with {beginning!r}: {', '.join(found)}")
    raise GatewayUnusable(f"no kernel is called {beginning!r}{near_miss(beginning, ids)}")


def _row(detail: Detail) -> list[str]:
    row = [str(detail.get(name) if detail.get(name) is not None else "") for name in COLUMNS]
    row[COLUMNS.index("last_activity")] = _ago(str(detail["last_activity"]))
    row[COLUMNS.index("reason")] = row[COLUMNS.index("reason")].partition("\n")[0]
    return row


def _ago(moment: str) -> str:
    seconds = (
        datetime.now(timezone.utc) - datetime.fromisoformat(moment.replace("Z", "+00:00"))
    ).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0, seconds):.0f} s ago"


def _change(detail: Detail) -> str:
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    told = str(detail.get("reason") or detail.get("status") or "").partition("\n")[0]
    where = f"  on {detail['host']}" if detail.get("host") else ""
    return f"{now}  {detail['state']}{where}  {told}".rstrip()
