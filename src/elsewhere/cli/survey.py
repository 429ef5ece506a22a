"""``elsewhere survey``: what the managers say is out there, and what of it is wanted."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from jupyter_core.paths import jupyter_data_dir

from elsewhere.cli.findings import KINDS, MISSING, Answer, KnownHome, Question, Row, judged
from elsewhere.cli.stanzas import stanza_for
from elsewhere.errors import BackendError, ElsewhereError, SettingsError
from elsewhere.settings import Settings, load, resolve

TIMEOUT = 30.0
DIGEST = "#"
"""In the name of a cluster that a stanza describes inline."""
COLUMNS = ("cluster", "job_id", "kernel_id", "launch", "phase", "host", "kind", "reason")


def _home_id(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch("[0-9a-z]+", value):
        raise click.BadParameter(
            f"{value!r} is no home id: it has digits and letters a-z, and stands in the name of each job, "
            "elsewhere-HOME-LAUNCH-KERNEL"
        )
    return value


@click.command("survey")
@click.argument("cluster", metavar="[CLUSTER]", required=False)
@click.option("--home", metavar="ID", callback=_home_id, help="Only the jobs of this home.")
@click.option(
    "--data-directory",
    "directories",
    type=click.Path(path_type=Path),
    multiple=True,
    help="That of a gateway, repeatable; default: that of `elsewhere serve`, and of gateways started here.",
)
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=TIMEOUT, show_default=True, metavar="SECONDS",
    help="How long a manager may take to answer.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def command(
    cluster: str | None, home: str | None, directories: Sequence[Path], timeout: float, as_json: bool
) -> None:
    """Show what is out there: the jobs that the managers list, and what each of them is.

    CLUSTER is a cluster of elsewhere.toml or a backend such as `local`; without one all configured
    clusters are asked, and those that the kernels in the ledgers use. A job belongs to a home, whose
    id is in its name; the homes of this machine's gateways are known from their ledgers. Nothing is
    cancelled or changed, and no gateway need run.

    \b
    Each job is one of:
      ours          the launch that the ledger wants
      older launch  an earlier launch of a kernel in the ledger; a running gateway cancels it
      orphan        no kernel of the ledger; a running gateway cancels it after a grace
      unknown       of a home (--home) that has no ledger on this machine
      missing       wanted by the ledger, but the manager shows no job of it

    \b
    Examples:
      elsewhere survey
      elsewhere survey local --data-directory /srv/gateway
      elsewhere survey --json | jq -r '.jobs[] | select(.kind == "orphan").job_id'
    """
    settings = load()
    if cluster is not None and DIGEST not in cluster:
        stanza_for(cluster, settings)  # says at once what is misspelt
    homes = _homes(home, directories)
    questions, problems = _questions(homes, cluster, settings)
    answers = asyncio.run(_asked(questions, timeout))
    after = {one.home_id: one for one in _homes(home, directories)}
    homes_of = [after.get(one.question.home.home_id, one.question.home) for one in answers]
    rows = [row for one, home_of in zip(answers, homes_of, strict=True) for row in judged(one, home_of)]
    rows.sort(key=lambda row: (row.cluster, KINDS.index(row.kind), row.kernel_id, row.launch))
    problems += [f"cluster {one.cluster}: {one.problem}" for one in answers if one.problem]
    if as_json:
        click.echo(json.dumps({"jobs": [asdict(row) for row in rows], "problems": problems}, indent=2))
    else:
        _print(rows, answers)
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        raise click.exceptions.Exit(1)


def _homes(home_id: str | None, directories: Sequence[Path]) -> list[KnownHome]:
    """Return the homes to ask for. Raises ElsewhereError, which says what can be done if there is none."""
    default = Path(jupyter_data_dir(), "elsewhere-gateway")
    try:
        from elsewhere.cli.homes import data_directories, read_home
    except ModuleNotFoundError as error:
        if home_id is not None and not directories:
            return [KnownHome(home_id)]
        raise ElsewhereError(f"the ledger needs {error.name}: pip install 'elsewhere[gateway]'") from error
    found = map(read_home, directories or data_directories(default))
    homes = [one for one in found if one is not None and home_id in (None, one.home_id)]
    if homes or home_id is not None:
        return homes or [KnownHome(str(home_id))]
    where = ", ".join(map(os.fspath, directories)) or os.fspath(default)
    raise ElsewhereError(
        f"no gateway has a ledger in {where}, so no home is known here. Name the data directory of a gateway "
        "with --data-directory, or a home with --home: its id stands in the name of each of its jobs, "
        "elsewhere-HOME-LAUNCH-KERNEL"
    )


def _questions(
    homes: Sequence[KnownHome], cluster: str | None, settings: Settings
) -> tuple[list[Question], list[str]]:
    """Return whom to ask for which home, and why a cluster cannot be asked."""
    questions: dict[tuple[str, str], Question] = {}
    problems: list[str] = []
    for home in homes:
        for stanza, kernel_id in _stanzas(home, cluster, settings):
            where = f"kernel {kernel_id}" if kernel_id else f"cluster {cluster or stanza['cluster']}"
            try:
                resolved = resolve(stanza, settings, where)
            except SettingsError as error:
                problems.append(str(error))
                continue
            if cluster is None or cluster in (resolved.cluster, resolved.backend_name):
                key = (home.home_id, resolved.cluster)
                question = questions.setdefault(key, Question(home, resolved))
                question.kernels.extend(filter(None, [kernel_id]))
    if not questions and not problems:
        raise ElsewhereError(
            f"no kernel of a ledger is on {cluster}"
            if cluster is not None
            else "there is no cluster to ask: elsewhere.toml has none, and no ledger has kernels; name one, "
            "such as `elsewhere survey local`"
        )
    return list(questions.values()), list(dict.fromkeys(problems))


def _stanzas(
    home: KnownHome, cluster: str | None, settings: Settings
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield what may lead to a cluster that is to be asked, with the kernel whose stanza it is."""
    if cluster is None:
        yield from (({"cluster": name}, "") for name in settings.clusters)
    elif DIGEST not in cluster:
        yield stanza_for(cluster, settings), ""
    for kernel_id, wanted in home.kernels.items():
        names = [wanted.stanza.get("cluster"), wanted.stanza.get("backend")]
        if cluster is None or cluster.partition(DIGEST)[0] in names:
            yield wanted.stanza, kernel_id


async def _asked(questions: Sequence[Question], timeout: float) -> list[Answer]:
    return await asyncio.gather(*(_ask(question, timeout) for question in questions))


async def _ask(question: Question, timeout: float) -> Answer:
    cluster = question.cluster
    try:
        backend = cluster.backend(question.home.home_id, cluster.config)
        try:
            observation = await asyncio.wait_for(backend.survey(), timeout)
        finally:
            await backend.close()
    except asyncio.TimeoutError:
        return Answer(question, problem=f"the manager has not answered for {timeout:g} s")
    except BackendError as error:
        return Answer(question, problem=f"the manager did not answer: {error}")
    return Answer(question, observation.sightings)


def _print(rows: Sequence[Row], answers: Sequence[Answer]) -> None:
    cells = [[_cell(getattr(row, name)) for name in COLUMNS] for row in rows]
    if rows and sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*(name.replace("_", " ") for name in COLUMNS), box=None, header_style="bold")
        for line in cells:
            table.add_row(*map(Text, line))
        Console().print(table)
    else:
        for line in cells:
            click.echo("\t".join(line))
    for home in {one.question.home.home_id: one.question.home for one in answers}.values():
        asked = [one.cluster for one in answers if one.question.home is home and not one.problem]
        if asked:
            where = f" ({home.where})" if home.where else ", which has no ledger here,"
            counts = _counts([row for row in rows if row.home == home.home_id])
            click.echo(f"home {home.home_id}{where} on {', '.join(asked)}: {counts}", err=True)


def _counts(rows: Sequence[Row]) -> str:
    counts = Counter(row.kind for row in rows)
    jobs = len(rows) - counts[MISSING]
    told = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    return f"{jobs or 'no'} job{'' if jobs == 1 else 's'}" + (f" ({told})" if told else "")


def _cell(value: object) -> str:
    """Return a manager's word as one line without control characters."""
    text = "" if value is None else " ".join(str(value).split())
    return "".join(one if one.isprintable() else "?" for one in text)
