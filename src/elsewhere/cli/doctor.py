"""``elsewhere doctor``: a canary kernel on a cluster, and what to look at where it stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from elsewhere.cli.canary import Asked, Canary
from elsewhere.cli.checkup import FAILED, OK, SKIPPED, Checkup, Step
from elsewhere.cli.stanzas import launch_options

TIMEOUT = 60.0
HINT_AFTER = 5.0
"""Seconds after which a person wants to know what to look at."""
INTERRUPTED = 130
STYLES = {OK: "green", FAILED: "bold red", SKIPPED: "dim"}


@click.command("doctor")
@click.argument("cluster", metavar="CLUSTER")
@launch_options
@click.option("--spec", metavar="NAME", help="Kernelspec to start; default: ipykernel with python3.")
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=TIMEOUT, show_default=True, metavar="SECONDS",
    help="How long each step may take.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON at the end, for programs.")
def command(
    cluster: str, options: Mapping[str, str], spec: str | None, timeout: float, as_json: bool
) -> None:
    """Start a canary kernel on a cluster, and tell each step with its time.

    CLUSTER is a cluster of elsewhere.toml, or a backend such as `local` with its defaults. The canary
    is launched as a notebook's kernel is; it runs a few cells, is interrupted, restarted in its job and
    ended. Where a step fails, or takes longer than --timeout, it says what was found, what the job has
    printed, and what to look at next; the canary is ended, as on Ctrl-C. Exit code 1 tells that a step
    has failed.

    Of --spec's kernelspec its program and environment are used; where it runs is CLUSTER's matter. The
    default is ipykernel: of this Python for `local`, else of the python3 that the job finds.

    \b
    The steps:
      settings, reach the manager, render, submit   what is wrong before there is a job
      capacity                                      how many kernels a gateway on this machine can hold
      queued, running                               what the manager does with it
      agent home                                    the route from the job to this machine, and TLS
      kernel ready, first reply                     the kernel itself
      interrupt, restart                            what a notebook will do to it
      stop, nothing left                            that the job is over

    \b
    Examples:
      elsewhere doctor local
      elsewhere doctor hpc -o partition=debug --timeout 600
      elsewhere doctor hpc --spec ir --json | jq '.steps[] | select(.outcome == "failed")'
    """
    canary = Canary(Asked(cluster, options, spec))
    with _said() as said:
        checkup = asyncio.run(_check_up(canary, timeout, silent=as_json))
    if as_json:
        click.echo(json.dumps(_report(checkup, said), indent=2))
    elif checkup.failed:
        for message in said:
            click.echo(f"meanwhile elsewhere said: {message}", err=True)
    if checkup.interrupted:
        raise click.exceptions.Exit(INTERRUPTED)
    if checkup.failed:
        raise click.exceptions.Exit(1)


async def _check_up(canary: Canary, timeout: float, *, silent: bool) -> Checkup:
    console = Console(quiet=silent, highlight=False)
    printer = Printer(console)
    checkup = Checkup(canary, timeout, printer.tell)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is not signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(signum, checkup.interrupt)
    live = Live(console=console, transient=True, get_renderable=lambda: _under_way(checkup))
    with live if console.is_terminal and not silent else contextlib.nullcontext():
        await checkup.run()
        printer.tell_skipped()
    return checkup


def _under_way(checkup: Checkup) -> Text:
    name = checkup.under_way
    if name is None:
        return Text("")
    seconds = time.monotonic() - checkup.began
    hint = checkup.hint(name) if seconds >= HINT_AFTER else ""
    return Text(f"{'…':<8} {name:<17} {seconds:7.2f} s  {_line(hint)}", style="dim")


class Printer:
    """Prints each step at its end; those that are skipped for the same reason stand on one line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._skipped: list[str] = []

    def tell(self, step: Step) -> None:
        """Print it, unless it is skipped without a reason of its own."""
        if step.outcome == SKIPPED and not step.finding:
            self._skipped.append(step.name)
            return
        self.tell_skipped()
        first, *others = step.finding.splitlines() or [""]
        head = f" {step.name:<17} {step.seconds:7.2f} s  {_line(first)}"
        self._print(Text.assemble((f"{step.outcome:<8}", STYLES[step.outcome]), head))
        more = [*others, *(["the last lines of its log:"] if step.log else [])]
        for line in [*more, *(f"  {one}" for one in step.log if one.strip())]:
            self._print(Text(f"{'':<8} {_line(line)}"))
        if step.look_at:
            self._print(Text.assemble(f"{'':<8} ", ("look at: ", "bold"), _line(step.look_at)))

    def tell_skipped(self) -> None:
        """Print which steps were skipped, if any."""
        if self._skipped:
            self._print(Text(f"{SKIPPED:<8} {', '.join(self._skipped)}", STYLES[SKIPPED]))
            self._skipped.clear()

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)  # so that a line can be searched for, and copied


def _line(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text)


def _report(checkup: Checkup, said: Sequence[str]) -> Mapping[str, object]:
    facts = checkup.canary.facts
    return {
        "cluster": facts.where,
        "backend": facts.backend,
        "home": facts.home_id,
        "job_id": facts.job_id,
        "host": facts.host,
        "ok": not checkup.failed and not checkup.interrupted,
        "steps": [{**asdict(step), "seconds": round(step.seconds, 3)} for step in checkup.steps],
        "said": list(said),
    }


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def _said() -> Iterator[Sequence[str]]:
    """Keep what is logged meanwhile, which would stand between the steps."""
    handler = _Said()
    loggers = [logging.getLogger(name) for name in ("elsewhere", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield handler.messages
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
