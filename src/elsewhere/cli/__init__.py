"""The command line: ``elsewhere``, also found as ``jupyter elsewhere``."""

from __future__ import annotations

from importlib import import_module

import click

from elsewhere import __version__
from elsewhere.errors import ElsewhereError

_COMMANDS = {
    "bench": "elsewhere.cli.bench",
    "doctor": "elsewhere.cli.doctor",
    "kernels": "elsewhere.cli.kernels",
    "laws": "elsewhere.cli.laws",
    "ledger": "elsewhere.cli.ledger",
    "new-backend": "elsewhere.cli.new_backend",
    "render": "elsewhere.cli.render",
    "serve": "elsewhere.cli.serve",
    "specs": "elsewhere.cli.specs",
    "survey": "elsewhere.cli.survey",
    "users": "elsewhere.cli.users",
}


class _Main(click.Group):
    """Imports a command when it is asked for, and tells our errors as one message each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(_COMMANDS[cmd_name]).command
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ElsewhereError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            raise click.ClickException(
                f"{error.filename or ''}: {error.strerror or error}".strip(": ")
            ) from error


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="elsewhere")
def main() -> None:
    """Run Jupyter kernels on the machines that a resource manager owns.

    \b
    A kernel that runs as a job of this machine's embedded manager:
      elsewhere specs add local
      jupyter console --kernel python3-local
    """
