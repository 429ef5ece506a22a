"""Start a process: the part that must be quick and import little, for the user waits for it."""

from __future__ import annotations

import errno
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes longer to import than all the rest of this
    from typing import Dict, List, NoReturn, Optional

PR_SET_PDEATHSIG = 1


class Spawned:
    """A started process: its id (also of its process group), and a pipe from its stdout and stderr."""

    def __init__(self, pid: int, output: int) -> None:
        self.pid = pid
        self.output = output


class SpawnError(Exception):
    """The program could not be executed; the text says why."""


def spawn(argv: List[str], env: Dict[str, str], cwd: Optional[str]) -> Spawned:
    """Start ``argv`` in a process group of its own; it gets SIGKILL when this process dies.

    Raises SpawnError when the program cannot be executed.
    """
    output_read, output_write = os.pipe()
    failure_read, failure_write = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(argv, env, cwd, parent, output_write, failure_write)
    os.close(output_write)
    os.close(failure_write)
    failure = b""
    while True:
        part = os.read(failure_read, 4096)
        if not part:
            break
        failure += part
    os.close(failure_read)
    if failure:
        os.waitpid(pid, 0)
        os.close(output_read)
        number, _, text = failure.decode("utf-8", "replace").partition(" ")
        if number == str(errno.ENOENT):
            path = env.get("PATH", "")
            raise SpawnError("there is no program %r on this machine (PATH is %s)" % (argv[0], path))
        raise SpawnError("cannot execute %r: %s" % (argv[0], text))
    return Spawned(pid, output_read)


def _become(
    argv: List[str], env: Dict[str, str], cwd: Optional[str], parent: int, output: int, failure: int
) -> NoReturn:
    try:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for name in ("SIGPIPE", "SIGXFSZ", "SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        _die_with_parent(parent)
        if cwd is not None:
            os.chdir(cwd)
        os.execvpe(argv[0], argv, env)
    except OSError as error:
        os.write(failure, ("%d %s" % (error.errno or 0, error.strerror)).encode("utf-8", "replace"))
    except BaseException as error:
        os.write(failure, ("0 %s: %s" % (type(error).__name__, error)).encode("utf-8", "replace"))
    finally:
        os._exit(127)


def _die_with_parent(parent: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    except (ImportError, AttributeError, OSError):
        return
    if os.getppid() != parent:
        os._exit(127)
