"""Launches that fail, by each cause, and what must be said of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from site_kit import IPYKERNEL


@dataclass(frozen=True)
class Failure:
    """A wrong kernelspec, and what must be said of it."""

    step: str
    reason: str
    argv: tuple[str, ...] = IPYKERNEL
    options: dict[str, Any] = field(default_factory=dict)
    log: str = ""


BOOM = "print('boom'); print('last words'); raise SystemExit(3)"
MUTE = "import time; print('not listening', flush=True); time.sleep(1000)"

FAILURES = {
    "the backend rejects": Failure("submit", "no interpreter `no-such`", options={"python": "no-such"}),
    "the job dies at once": Failure("agent", "exited with code 1", options={"python": "false"}),
    "the agent finds no kernel": Failure("exec", "there is no program 'no-such-kernel'", ("no-such-kernel",)),
    "the kernel cannot be executed": Failure("exec", "cannot execute '/etc'", ("/etc",)),
    "the kernel exits on import": Failure(
        "kernel", "exited with code 3", ("python3", "-c", BOOM, "{connection_file}"), log="boom\n  last words"
    ),
    "the kernel does not listen": Failure(
        "kernel",
        "start_timeout",
        ("python3", "-c", MUTE, "{connection_file}"),
        {"start_timeout": 2},
        log="not listening",
    ),
}
