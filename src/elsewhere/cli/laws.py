"""``elsewhere laws``: whether a backend keeps what everything else builds on, on a manager that runs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from typing import Any

import click

from elsewhere.backend import Model
from elsewhere.cli.stanzas import launch_options, pairs, stanza_for, value_of, with_options
from elsewhere.errors import ElsewhereError
from elsewhere.settings import load
from elsewhere.validation import Place, Problems

_NEEDS = ("pytest", "pytest_asyncio", "blockbuster", "ipykernel")


@click.command("laws")
@click.argument("cluster", metavar="CLUSTER")
@launch_options
@click.option(
    "--unreachable",
    metavar="KEY=VALUE",
    multiple=True,
    callback=pairs,
    help="Keys of the cluster that point to where no manager answers; repeatable.",
)
@click.option(
    "--impossible",
    metavar="KEY=VALUE",
    multiple=True,
    callback=pairs,
    help="Options of a launch that this manager refuses; repeatable.",
)
@click.option("--python", default=sys.executable, help="Interpreter in the job that has ipykernel.")
@click.option(
    "--patience", default=30.0, show_default=True, help="Seconds that the manager may take for anything."
)
@click.option("-k", "choice", metavar="WORDS", help="Only the laws whose names match, as with pytest -k.")
def command(
    cluster: str,
    options: Mapping[str, str],
    unreachable: Mapping[str, str],
    impossible: Mapping[str, str],
    python: str,
    patience: float,
    choice: str | None,
) -> None:
    """Try the laws that every backend keeps, on a real manager.

    CLUSTER is a cluster of elsewhere.toml, or the name of a backend, with its defaults. The laws submit
    some dozens of short jobs and some kernels, and leave nothing. Capabilities unlock their laws by being
    there. Laws that need to know more of the manager are skipped, and say which option they want.

    An author rather has a test file: elsewhere new-backend writes one.

    \b
    Examples:
      elsewhere laws local
      elsewhere laws my-cluster --impossible partition=nowhere --unreachable url=http://localhost:1
      elsewhere laws my-cluster -k "cancel or signal"
    """
    _check_installed()
    from elsewhere.testing.subject import IPYKERNEL, Subject
    from elsewhere.testing.suite import NO_LAW_CHOSEN, run

    settings = load()
    stanza = stanza_for(cluster, settings)
    _, resolved = with_options(stanza, options, settings, f"cluster {cluster!r}")
    subject = Subject(
        resolved.backend,
        _written(resolved.config),
        {"python": python, **_written(resolved.options)},
        argv=(python, *IPYKERNEL[1:]),
        switchboard=settings.switchboard,
        patience=patience,
        unreachable=_checked(
            resolved.backend.Config, _written(resolved.config), unreachable, "--unreachable"
        ),
        impossible=_checked(resolved.backend.Options, _written(resolved.options), impossible, "--impossible"),
    )
    code = run(subject, click.echo, choice)
    if code == NO_LAW_CHOSEN:
        raise ElsewhereError(f"no law's name matches {choice!r}")
    raise click.exceptions.Exit(code)


def _check_installed() -> None:
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ElsewhereError(f"the laws need {', '.join(missing)}: pip install 'elsewhere[testing]'")


def _written(model: Model) -> dict[str, Any]:
    return model.model_dump(exclude_unset=True)


def _checked(
    model: type[Model], given: Mapping[str, object], asked: Mapping[str, str], where: str
) -> dict[str, object] | None:
    """Return these values, None if there are none. Raises SettingsError with the near miss."""
    if not asked:
        return None
    values = {key: value_of(text, model.model_fields.get(key)) for key, text in asked.items()}
    problems = Problems()
    problems.check(model, {**given, **values}, Place(where))
    problems.complain()
    return values
