"""``elsewhere render``: exactly what would be submitted for a kernelspec."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import click
from jupyter_client.kernelspec import KernelSpec
from pydantic import BaseModel

from elsewhere.backend import Mark
from elsewhere.cli.stanzas import launch_options, read_spec, stanza_of, with_options
from elsewhere.launch import Host, plan
from elsewhere.settings import Resolved, load

MARK = Mark("0" * 12, "00000000-0000-0000-0000-000000000000", 1)
"""As long as a real one, and the same each time, so that what is printed can be compared."""

WIDTH = 100


@click.command("render")
@click.argument("spec", metavar="SPEC")
@launch_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def command(spec: str, options: Mapping[str, str], as_json: bool) -> None:
    """Show exactly what would be submitted to start a kernel.

    SPEC is an installed kernelspec with our stanza (elsewhere specs list). Nothing is submitted and no
    manager is asked. The ids of home and kernel, which are new for each launch, are zeros. What is
    secret is not part of a request: it goes with the job in the parcel, which is not shown.

    A request that is a text, such as a batch script, is printed as it is.

    \b
    Examples:
      elsewhere render python3-local
      elsewhere render python3-local -o nice=10 -o 'pass_env=["HF_*"]'
      elsewhere render python3-local --json | jq .argv
    """
    settings = load()
    installed = read_spec(spec)
    where = f"kernelspec {spec!r}"
    _, resolved = with_options(stanza_of(spec, installed), options, settings, where)
    request = plain(asyncio.run(rendered(spec, installed, resolved)))
    if as_json:
        click.echo(json.dumps(request, indent=2, ensure_ascii=False))
    elif isinstance(request, str):
        click.echo(request, nl=not request.endswith("\n"))
    else:
        for line in lines(request):
            click.echo(line)


async def rendered(name: str, spec: KernelSpec, resolved: Resolved) -> object:
    """Return the backend's own request; raises SettingsError, Rejected."""
    launch = plan(MARK, name, spec, resolved, {}, Host.current())
    backend = resolved.backend(MARK.home_id, resolved.config)
    try:
        return backend.render(launch)
    finally:
        await backend.close()


def plain(value: object) -> Any:
    """Return a request as JSON data, with nothing left out."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mark | PurePath):
        return str(value)
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(one) for name, one in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value), key=str)
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value)


def lines(value: Any, indent: str = "") -> Iterator[str]:
    """Yield JSON data as a person reads it: a line for each value, texts of several lines as they are."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _lines_of(f"{indent}{key}:", one, indent)
    elif isinstance(value, list):
        for one in value:
            yield from _lines_of(f"{indent}-", one, indent)
    else:
        yield indent + _inline(value)


def _lines_of(head: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, str) and "\n" in value:
        yield f"{head} |"
        yield from (f"{indent}  {line}" for line in value.split("\n"))
    elif _is_short(value) and len(head) + len(_inline(value)) < WIDTH:
        yield f"{head} {_inline(value)}"
    elif isinstance(value, dict | list) and value:
        yield head
        yield from lines(value, indent + "  ")
    else:
        yield f"{head} {_inline(value)}"


def _is_short(value: Any) -> bool:
    """Whether it may stand on one line: a value, or a list of values with no list within."""
    if isinstance(value, dict):
        return not value
    if isinstance(value, list):
        return not any(
            isinstance(one, dict | list) or (isinstance(one, str) and "\n" in one) for one in value
        )
    return True


def _inline(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
