"""``elsewhere serve``: the gateway, whose options are those of a Jupyter Server."""

from __future__ import annotations

import click

from elsewhere.errors import ElsewhereError


@click.command(
    "serve",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.pass_context
def command(context: click.Context) -> None:
    """Share kernels that run elsewhere with many front ends (``--help`` lists the options)."""
    try:
        from elsewhere.gateway.app import GatewayApp
    except ModuleNotFoundError as error:
        raise ElsewhereError(f"the gateway needs {error.name}: pip install 'elsewhere[gateway]'") from error
    GatewayApp.launch_instance(argv=context.args)
