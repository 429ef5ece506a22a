"""A private directory for the unix sockets of one process, with a short path.

Never in a home directory: those may be on a network. What a process that was killed left behind is
swept by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import time
from pathlib import Path

from .errors import ElsewhereError

LONGEST_SOCKET_PATH = 107
UNLOCKED = 3600.0
"""Seconds after which a directory without a lock is one whose maker died before he had locked it."""
_LOCK = "lock"
_NEW = "new"


class RunDirectory:
    """``path`` is ours alone, of mode 0700, until ``remove``. Raises ElsewhereError."""

    def __init__(self, base: Path | None = None) -> None:
        parent = base if base is not None else _parent()
        _sweep(parent)
        self.path = parent / secrets.token_hex(4)
        self.path.mkdir(mode=0o700)
        new = self.path / _NEW
        self._lock = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        new.rename(self.path / _LOCK)  # locked before anybody who sweeps can see it

    def remove(self) -> None:
        """Remove it with all that it holds. May be called more than once."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def _parent() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and len(runtime) < 60 and os.access(runtime, os.W_OK):
        return private(Path(runtime) / "elsewhere-home")
    return private(Path(f"/tmp/elsewhere-home-{os.getuid()}"))  # noqa: S108 - made private, checked


def private(path: Path) -> Path:
    """Make a directory of mode 0700, or check that the one that is there is ours alone.

    Raises ElsewhereError when it belongs to somebody else, is a link, or is open to others.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise ElsewhereError(f"cannot make the directory {path}: {error.strerror}") from error
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ElsewhereError(f"{path} is not a private directory of ours; remove it or set XDG_RUNTIME_DIR")
    return path


def _sweep(parent: Path) -> None:
    for path in parent.iterdir():
        try:
            fd = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            _sweep_unlocked(path)
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(fd)


def _sweep_unlocked(path: Path) -> None:
    with contextlib.suppress(OSError):
        if time.time() - path.lstat().st_mtime > UNLOCKED:
            (path / _NEW).unlink(missing_ok=True)
            path.rmdir()
