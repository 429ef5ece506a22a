"""Processes of this machine, told apart for certain: a pid alone is nobody's identity."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from elsewhere.errors import Rejected

JOB_VARIABLE = "ELSEWHERE_JOB"
"""Carried by every process of a job in its environment; its value is the job's mark."""

_SWEEPS = 100


@dataclass(frozen=True)
class Identity:
    """One process, for ever: a pid may be used again, but not with the same start in the same boot."""

    pid: int
    start: int
    boot: str


@dataclass(frozen=True)
class Process:
    """What the kernel says of one process at one moment."""

    pid: int
    start: int
    parent: int
    session: int
    dead: bool


def require_proc() -> None:
    """Raise ``Rejected`` where the system does not tell about processes as Linux does."""
    if not os.path.exists("/proc/self/stat"):
        raise Rejected(f"the local manager needs /proc as Linux has it; this is {sys.platform} without it")


@cache
def boot_id() -> str:
    """Return what distinguishes this run of the machine from every other."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def look(pid: int) -> Process | None:
    """Return what process ``pid`` is now, a zombie counted as dead; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            content = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name stands in parentheses and may itself hold any byte, so count from its end.
    fields = content[content.rindex(b")") + 2 :].split()
    return Process(
        pid=pid,
        start=int(fields[19]),
        parent=int(fields[1]),
        session=int(fields[3]),
        dead=fields[0] in (b"Z", b"X", b"x"),
    )


def identify(pid: int) -> Identity | None:
    """Return the identity of the process that has this pid now."""
    process = look(pid)
    return Identity(pid, process.start, boot_id()) if process else None


def find(identity: Identity) -> Process | None:
    """Return the very process that was identified, dead or alive; None once it is gone."""
    if identity.boot != boot_id():
        return None
    process = look(identity.pid)
    return process if process and process.start == identity.start else None


def send(pid: int, start: int, signum: int) -> bool:
    """Send a signal to the process that has this pid and start, and surely to no other.

    Return whether it was there to take it. May raise ``OSError`` for a number that is no signal.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except (AttributeError, OSError):
        handle = None  # an older kernel: the moment between look and kill remains
    try:
        process = look(pid)
        if process is None or process.start != start:
            return False
        if handle is None:
            os.kill(pid, signum)
        else:
            signal.pidfd_send_signal(handle, signum)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def main_process(mark: str, parcel: str) -> Process | None:
    """Return the live process that runs the parcel of the job ``mark``, for want of a record of it."""
    argument = os.fsencode(parcel)
    for process in _all():
        leads = process.pid == process.session and not process.dead
        if leads and _job_of(process.pid) == mark and argument in _read(process.pid, "cmdline"):
            return process
    return None


def sweep(jobs: dict[str, Identity | None]) -> None:
    """Send SIGKILL to every process of the jobs, given by mark with the main process where known.

    A process is of a job if its environment carries the mark, or if it is in the session that the
    main process opened, as long as something certain proves that this session is still the job's.
    Looks again until nothing new is found, so that what was forked meanwhile does not escape;
    does not wait for the deaths.
    """
    done: set[tuple[int, int]] = set()
    for _ in range(_SWEEPS):
        found = [p for p in _members(jobs, done) if (p.pid, p.start) not in done]
        if not found:
            return
        for process in found:
            send(process.pid, process.start, signal.SIGKILL)
            done.add((process.pid, process.start))


def _members(jobs: dict[str, Identity | None], known: set[tuple[int, int]]) -> list[Process]:
    processes = [p for p in _all() if p.pid != os.getpid()]
    mains = {(i.pid, i.start) for i in jobs.values() if i and i.boot == boot_id()}
    sure = [p for p in processes if {(p.pid, p.start)} & (mains | known) or _job_of(p.pid) in jobs]
    # The number of a session is not given out again while a process, even a zombie, is in it.
    sessions = {pid for pid, _ in mains} & {p.session for p in sure}
    return [*sure, *(p for p in processes if p.session in sessions and p not in sure)]


def _all() -> Iterator[Process]:
    for name in os.listdir("/proc"):
        with contextlib.suppress(PermissionError):  # others' processes may be hidden from us
            if name.isdigit() and (process := look(int(name))):
                yield process


def _job_of(pid: int) -> str | None:
    prefix = JOB_VARIABLE.encode() + b"="
    for entry in _read(pid, "environ"):
        if entry.startswith(prefix):
            return os.fsdecode(entry[len(prefix) :])
    return None


def _read(pid: int, name: str) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []  # gone, or not ours to look into
