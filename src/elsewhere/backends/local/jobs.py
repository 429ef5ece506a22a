"""The jobs of one home, as directories and processes of this machine. Everything here may block.

A job is a directory named by its mark::

    parcel.pyz    until the agent has read it
    log, log.1    what the job printed, and the part before that
    job.json      the identity of its main process: written once that runs
    ended.json    how it ended: written once all its processes are gone or have been killed
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from elsewhere.backend import JobId, Mark, Parcel, Phase, Sighting
from elsewhere.backends.local import processes
from elsewhere.backends.local.processes import JOB_VARIABLE, Identity
from elsewhere.errors import Rejected, Unreachable

FORGET_AFTER = 3600.0
"""Seconds after which an ended job that nobody discarded is removed."""

SUBMIT_PATIENCE = 10.0
"""Seconds for which a job without a main process is taken for one that is just being submitted."""

_TAIL_BYTES = 256 * 1024
_GONE = ".gone-"
_UNWATCHED = "ended while nobody watched"

T = TypeVar("T")

# Reaping and writing down what was reaped is one act: whoever comes second would not know the code.
_settling = threading.Lock()


@dataclass(frozen=True)
class LocalRequest:
    """Exactly what is started for one job: no value of the environment and no secret is in it."""

    mark: Mark
    argv: tuple[str, ...]
    nice: int | None
    environment: tuple[str, ...]
    cwd: str
    directory: Path

    @property
    def parcel(self) -> Path:
        """Where the parcel is stored; the agent deletes it."""
        return self.directory / "parcel.pyz"

    @property
    def log(self) -> Path:
        """Where all that the job prints is appended."""
        return self.directory / "log"


@dataclass(frozen=True)
class Ended:
    """How a job ended, for all who ask later."""

    exit_code: int | None
    reason: str


_IDENTITY = TypeAdapter(Identity)
_ENDED = TypeAdapter(Ended)


class Jobs:
    """All jobs of one home below one private directory; others' are never touched."""

    def __init__(self, home_id: str, path: Path, private: tuple[Path, ...], log_limit: int) -> None:
        self.home_id = home_id
        self.path = path
        self._private = private
        self._log_limit = log_limit
        self._opened = False

    def start(self, request: LocalRequest, parcel: Parcel, environ: Mapping[str, str]) -> None:
        """Start a detached process for the request. Raises ``Rejected``, and then leaves nothing."""
        processes.require_proc()
        self._open(create=True)
        try:
            argv = [_resolved(request.argv[0], environ), *request.argv[1:]]
            if request.nice is not None:
                argv = ["nice", "-n", str(request.nice), *argv]
            request.directory.mkdir(mode=0o700)
        except FileExistsError:
            raise Rejected(f"the job {request.mark} was submitted before") from None
        except (OSError, ValueError) as error:
            raise Rejected(f"cannot submit the job: {error}") from error
        try:
            _create(request.parcel, parcel.content)
            pid = _spawn(argv, request, environ)
            identity = processes.identify(pid)
            if identity:
                _write_json(request.directory / "job.json", identity)
            else:  # it is over, and something else in this process reaps all children
                _write_json(request.directory / "ended.json", Ended(None, _UNWATCHED))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            processes.sweep({str(request.mark): None})
            shutil.rmtree(request.directory, ignore_errors=True)
            raise Rejected(f"cannot start {request.argv[0]}: {error}") from error

    def survey(self) -> tuple[Sighting, ...]:
        """Return all jobs of this home; on the way, tidy up after those that ended."""
        processes.require_proc()
        self._open(create=not self._opened)
        host = socket.gethostname()
        try:
            with _settling:
                marks = self._marks()
                self._settle(marks)
                seen = [self._sighting(mark, host) for mark in marks]
        except OSError as error:
            raise Unreachable(f"cannot read the jobs in {self.path}: {error}") from error
        return tuple(sighting for sighting in seen if sighting)

    def terminate(self, mark: Mark) -> bool:
        """Ask the job to end; return whether its main process lives, else kill what it left."""
        identity = self._identity(mark)
        if identity and self._send(identity, signal.SIGTERM):
            return True
        self.kill(mark)
        return False

    def kill(self, mark: Mark) -> None:
        """Kill all processes of the job."""
        if self._directory(mark).is_dir() and not self._ended(mark):
            processes.sweep({str(mark): self._recorded(mark)})

    def alive(self, mark: Mark) -> bool:
        """Return whether the job's main process lives."""
        identity = self._recorded(mark)
        return identity is not None and self._lives(identity)

    def signal(self, mark: Mark, signum: int) -> None:
        """Send one signal to the job's main process."""
        identity = self._identity(mark)
        try:
            if identity:
                self._send(identity, signum)
        except OSError as error:
            raise Rejected(f"cannot send the signal {signum}: {error}") from error

    def tail(self, mark: Mark, lines: int) -> list[str]:
        """Return the last lines of the log, also when it has just been rotated."""
        content = b""
        for name in ("log", "log.1"):
            missing = _TAIL_BYTES - len(content)
            if content.count(b"\n") <= lines and missing > 0:
                content = _end_of(self._directory(mark) / name, missing) + content
        text = content.decode(errors="replace").removesuffix("\n")
        return [line.rstrip("\r") for line in text.split("\n")][-lines:] if text and lines > 0 else []

    def discard(self, mark: Mark) -> None:
        """Remove the directory of a job that is over; leave that of any other."""
        with _settling:
            self._settle([mark])
            if self._ended(mark):
                _remove(self._directory(mark))

    def _open(self, *, create: bool) -> None:
        """Make sure that the directory is there and nobody else's."""
        try:
            if create:
                self._private[0].parent.mkdir(parents=True, exist_ok=True)
            for path in self._private:
                if create:
                    with contextlib.suppress(FileExistsError):
                        path.mkdir(mode=0o700)
                _check_private(path, path.lstat())
        except FileNotFoundError as error:
            raise Unreachable(f"the directory of the jobs is gone: {error}") from error
        except OSError as error:
            raise Rejected(f"cannot keep jobs in {self.path}: {error}") from error
        self._opened = True

    def _marks(self) -> list[Mark]:
        """Return the marks of this home's jobs; finish what was being removed when a home died."""
        marks = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                mark = Mark.parse(entry.name.removeprefix(_GONE))
                if mark is None or not entry.is_dir(follow_symlinks=False):
                    continue
                if mark.home_id != self.home_id:
                    self._forget_of_another(mark)
                elif entry.name.startswith(_GONE):
                    shutil.rmtree(entry.path, ignore_errors=True)
                elif entry.name == str(mark):
                    marks.append(mark)
        return marks

    def _forget_of_another(self, mark: Mark) -> None:
        """Remove what a job of another home left that has been over for long: that home is dead."""
        directory = self._directory(mark)
        if directory.is_dir() and _age(directory) > FORGET_AFTER:
            identity = self._recorded(mark)
            if identity is None or not self._lives(identity):
                _remove(directory)

    def _settle(self, marks: list[Mark]) -> None:
        """Find those that have just ended: kill what is left of them, reap them, write it down.

        A submit that its home's death cut short before there was a process never became a job.
        """
        over: dict[Mark, Identity | None] = {}
        for mark in marks:
            identity = self._identity(mark)
            process = processes.find(identity) if identity else None
            ours = process is not None and process.dead and process.parent == os.getpid()
            if ours or (not self._ended(mark) and self._is_over(mark, identity)):
                over[mark] = identity
        if over:
            # Before reaping: as long as our zombie stands there, its session is surely the job's.
            processes.sweep({str(mark): identity for mark, identity in over.items()})
        for mark, identity in over.items():
            if identity is None:
                _remove(self._directory(mark))
                continue
            with contextlib.suppress(FileNotFoundError):
                _write_json(self._directory(mark) / "ended.json", _reap(identity))

    def _is_over(self, mark: Mark, identity: Identity | None) -> bool:
        if identity:
            return not self._lives(identity)
        return _age(self._directory(mark)) > SUBMIT_PATIENCE

    def _sighting(self, mark: Mark, host: str) -> Sighting | None:
        """Return the sighting of one job, None if it is gone or to be forgotten; rotate its log."""
        directory = self._directory(mark)
        ended = self._ended(mark)
        if ended and _age(directory / "ended.json") > FORGET_AFTER:
            _remove(directory)
            return None
        if not directory.is_dir():
            return None
        _rotate(directory / "log", self._log_limit)
        phase = Phase.ENDED if ended else Phase.RUNNING if self._recorded(mark) else Phase.QUEUED
        return Sighting(
            kernel_id=mark.kernel_id,
            launch=mark.launch,
            job_id=JobId(str(mark)),
            phase=phase,
            host=host,
            reason=ended.reason if ended else "being started" if phase is Phase.QUEUED else None,
            exit_code=ended.exit_code if ended else None,
        )

    def _identity(self, mark: Mark) -> Identity | None:
        """Return the main process's identity; write it down if the submitting home died before it could."""
        identity = self._recorded(mark)
        directory = self._directory(mark)
        if identity or self._ended(mark) or _age(directory) <= SUBMIT_PATIENCE:
            return identity
        process = processes.main_process(str(mark), str(directory / "parcel.pyz"))
        if process is None:
            return None
        identity = Identity(process.pid, process.start, processes.boot_id())
        with contextlib.suppress(FileNotFoundError):
            _write_json(directory / "job.json", identity)
        return identity

    def main_processes(self, marks: Iterable[Mark]) -> list[Identity]:
        """Return the identities of these jobs' main processes, as far as they are recorded."""
        return [identity for mark in marks if (identity := self._recorded(mark))]

    def _lives(self, identity: Identity) -> bool:
        process = processes.find(identity)
        return process is not None and not process.dead

    def _send(self, identity: Identity, signum: int) -> bool:
        return self._lives(identity) and processes.send(identity.pid, identity.start, signum)

    def _recorded(self, mark: Mark) -> Identity | None:
        return _read_json(self._directory(mark) / "job.json", _IDENTITY)

    def _ended(self, mark: Mark) -> Ended | None:
        return _read_json(self._directory(mark) / "ended.json", _ENDED)

    def _directory(self, mark: Mark) -> Path:
        return self.path / str(mark)


def _check_private(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        problem = "it is a symbolic link"
    elif not stat.S_ISDIR(status.st_mode):
        problem = "it is not a directory"
    elif status.st_uid != os.geteuid():
        problem = f"it belongs to user {status.st_uid}, not to {os.geteuid()}"
    elif status.st_mode & 0o077:
        problem = f"others may use it (mode {stat.S_IMODE(status.st_mode):04o}; it must be 0700)"
    else:
        return
    raise Rejected(f"cannot keep jobs in {path}: {problem}")


SCRATCH_VARIABLE = "ELSEWHERE_SCRATCH"
"""Tells the agent of a directory of this job alone, which is removed with the job."""


def _resolved(python: str, environ: Mapping[str, str]) -> str:
    found = shutil.which(python, path=environ.get("PATH", os.defpath))
    if found is None:
        where = "" if os.path.dirname(python) else " on PATH"
        raise Rejected(f"no interpreter `{python}`{where}; set the option `python`")
    return os.path.abspath(found)  # the job has another working directory


def _spawn(argv: list[str], request: LocalRequest, environ: Mapping[str, str]) -> int:
    env = {name: environ[name] for name in request.environment if name in environ}
    env[JOB_VARIABLE] = str(request.mark)
    env[SCRATCH_VARIABLE] = str(request.directory)
    log = os.open(request.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=request.cwd if os.path.isdir(request.cwd) and os.access(request.cwd, os.X_OK) else "/",
            env=env,
            start_new_session=True,
        )
    finally:
        os.close(log)
    # Popen must forget the process: else it would warn, or reap it when we look for its exit code.
    child.returncode = 0
    return child.pid


def _reap(identity: Identity) -> Ended:
    """Take the exit code of a dead main process if it is our child, else say why it is not known."""
    if identity.boot != processes.boot_id():
        return Ended(None, "the machine was started anew")
    process = processes.find(identity)
    if process is None or process.parent != os.getpid():
        return Ended(None, _UNWATCHED)
    try:
        pid, status = os.waitpid(identity.pid, os.WNOHANG)
    except ChildProcessError:
        return Ended(None, _UNWATCHED)
    if pid == 0:
        return Ended(None, _UNWATCHED)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return Ended(code, f"exited with code {code}")
    try:
        name = f" ({signal.Signals(-code).name})"
    except ValueError:
        name = ""
    return Ended(code, f"killed by signal {-code}{name}")


def _rotate(log: Path, limit: int) -> None:
    """Move what a log holds to ``log.1`` once it is longer than ``limit``; the job keeps it open.

    The job appends, so it goes on at the start of what was truncated. What it prints in the instant
    between the end of the copy and the truncation is lost.
    """
    try:
        if log.stat().st_size <= limit:
            return
        copy = log.with_name("log.1.new")
        target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(target, "wb") as older, open(log, "rb+") as source:
            shutil.copyfileobj(source, older, 1024 * 1024)
            source.truncate(0)
        copy.replace(log.with_name("log.1"))
    except FileNotFoundError:
        return


def _end_of(path: Path, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size)
    except (FileNotFoundError, NotADirectoryError):
        return b""


def _remove(directory: Path) -> None:
    """Remove a job's directory so that nobody ever sees half of it."""
    gone = directory.with_name(_GONE + directory.name)
    with contextlib.suppress(FileNotFoundError):
        directory.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _create(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _read_json(path: Path, adapter: TypeAdapter[T]) -> T | None:
    """Return what is stored, None if that is nothing whole."""
    try:
        return adapter.validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def _write_json(path: Path, value: Identity | Ended) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    _create(new, json.dumps(asdict(value)).encode())
    new.replace(path)
