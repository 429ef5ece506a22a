"""What an author says of the backend that is to be tried, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from elsewhere.backend import Backend, JobId
from elsewhere.settings import LaunchSettings, Limits, Resolved, Switchboard

IPYKERNEL = (sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}")


@dataclass(frozen=True)
class Subject:
    """A backend, and a manager that runs and that it can reach.

    ``config``: the cluster's keys, as in ``elsewhere.toml``. ``options``: what each job of the laws asks for.
    ``argv``: how a kernel is started in a job (ipykernel's or one that takes the same options after its
    program). ``switchboard``: where jobs reach the machine that runs the laws. ``patience``: seconds that the
    manager may take for anything.

    Some laws can only be tried with what the author knows of the manager, and are skipped without it.
    ``down``: a context within which the manager does not answer, while its jobs go on. ``unreachable``: keys
    of ``config`` that point to where no manager answers, for want of such a context. ``impossible``: options
    that the manager refuses. ``exposed``: all that the manager shows to others of a job, as one text.
    """

    backend: type[Backend[Any, Any]]
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    argv: tuple[str, ...] = IPYKERNEL
    switchboard: Switchboard = field(default_factory=Switchboard)
    patience: float = 30.0
    down: Callable[[], AbstractAsyncContextManager[None]] | None = None
    unreachable: Mapping[str, Any] | None = None
    impossible: Mapping[str, Any] | None = None
    exposed: Callable[[JobId], Awaitable[str]] | None = None

    @property
    def python(self) -> str:
        """The interpreter that runs the agent in a job."""
        return str(self.options.get("python") or self.argv[0])

    def resolved(self, *, launch: LaunchSettings | None = None, **options: Any) -> Resolved:
        """Return what a stanza with these settings would mean. ``options`` come on top of the subject's."""
        return Resolved(
            cluster="under test",
            backend_name=self.backend.__name__,
            backend=self.backend,
            config=self.backend.Config.model_validate(dict(self.config)),
            options=self.backend.Options.model_validate({**self.options, **options}),
            launch=launch or LaunchSettings(start_timeout=2 * self.patience),
            limits=Limits(),
        )
