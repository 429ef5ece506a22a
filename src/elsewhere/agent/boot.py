"""The agent's first steps: open the parcel, start the kernel, and only then import the rest."""

from __future__ import annotations

import json
import os
import sys

from . import order, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

MEMBER = "parcel.json"
"""The parcel's own member of the archive that holds this program."""


SCRATCH = "ELSEWHERE_SCRATCH"
"""A manager may name a directory of this job alone here, which is removed with the job."""

LONGEST = 98
"""Bytes of a directory in which `/100/k-5` can still be the path of a unix socket (107)."""


class Booted:
    """The parcel, private directories, and the kernel's start: a process or what went wrong.

    ``scratch`` is the manager's directory for this job, or empty.
    """

    def __init__(
        self,
        parcel: Dict[str, Any],
        directory: str,
        scratch: str,
        program: Optional[order.Program],
        spawned: Optional[spawn.Spawned],
        failure: str,
    ) -> None:
        self.parcel = parcel
        self.directory = directory
        self.scratch = scratch
        self.program = program
        self.spawned = spawned
        self.failure = failure


def main() -> None:
    """Run the agent. Ends the process with 0 when the job ended as home or a grace wanted it."""
    archive = sys.path[0]
    parcel = read_parcel(archive)
    scratch = os.environ.pop(SCRATCH, "")
    try:
        directory = private_directory(scratch)
    except BaseException:
        remove(archive)
        raise
    program = spawned = None
    failure = ""
    try:
        program = order.prepare(parcel["order"], directory)
        spawned = spawn.spawn(program.argv, program.env, program.cwd)
    except (OSError, ValueError, spawn.SpawnError) as error:
        failure = str(error)
    from .main import run

    remove(archive)
    # Without taking the interpreter down in order: home waits for the end of this process.
    os._exit(run(Booted(parcel, directory, scratch, program, spawned, failure)))


def read_parcel(archive: str) -> Dict[str, Any]:
    """Return the parcel in the archive that this program was started from."""
    loader = sys.modules["__main__"].__loader__
    content: bytes = loader.get_data(os.path.join(archive, MEMBER))  # type: ignore[union-attr]
    parcel: Dict[str, Any] = json.loads(content.decode())
    return parcel


def private_directory(scratch: str) -> str:
    """Make a directory of mode 0700 whose path is short enough for unix sockets."""
    name = "ew-" + os.urandom(4).hex()
    for base in (scratch, os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", os.environ.get("TMPDIR", "")):  # noqa: S108
        path = os.path.join(base, "a" if base == scratch else name)
        if not base or len(path) > LONGEST:
            continue
        try:
            os.mkdir(path, 0o700)
        except OSError:
            continue
        return path
    sys.exit("elsewhere: no writable directory with a short path: tried $XDG_RUNTIME_DIR, /tmp, $TMPDIR")


def remove(path: str) -> None:
    """Remove a file that may be gone already."""
    try:
        os.unlink(path)
    except OSError:
        pass
