"""One kernel process: its exit, its log, its usage, its signals."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections import deque
from typing import Callable, Deque, List, Optional, Tuple

from .spawn import Spawned

TAIL_LINES = 30
LINE_BYTES = 1000
MOST_LAST_READS = 64
PIPE_ROOM = 4096
"""Bytes that can be written to a pipe without waiting, where select says that it can be written to."""


class LogTail:
    """The last lines of what was printed, each cut to LINE_BYTES."""

    def __init__(self) -> None:
        self._lines: Deque[str] = deque(maxlen=TAIL_LINES)
        self._partial = b""

    def feed(self, data: bytes) -> None:
        """Take more output."""
        *whole, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[:LINE_BYTES]
        for line in whole[-TAIL_LINES:]:
            self._lines.append(line[:LINE_BYTES].decode("utf-8", "replace").rstrip("\r"))

    def lines(self) -> List[str]:
        """Return the last lines, oldest first."""
        partial = self._partial.decode("utf-8", "replace")
        return [*self._lines, *([partial] if partial else [])]


class Process:
    """A running kernel process. ``exited`` is called once with its exit code (negative: signal)."""

    def __init__(self, spawned: Spawned, tail: LogTail, exited: Callable[[Process], None]) -> None:
        self.pid = spawned.pid
        self.exit_code: Optional[int] = None
        self.tail = tail
        self._output = spawned.output
        self._exited = exited
        os.set_blocking(self._output, False)
        asyncio.get_running_loop().add_reader(self._output, self._read)

    def reap(self) -> None:
        """Look whether it has exited; call after SIGCHLD. The rest of its process group is killed."""
        if self.exit_code is not None:
            return
        self._kill_the_rest()
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pid, status = self.pid, 0
        if not pid:
            return
        self.exit_code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        for _ in range(MOST_LAST_READS):
            if not self._read():
                break
        self._exited(self)

    def _kill_the_rest(self) -> None:
        """While it is not reaped, nobody else can have its number as that of a process group."""
        if not hasattr(os, "waitid"):
            return
        try:
            gone = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if gone is not None:
                os.killpg(self.pid, signal.SIGKILL)
        except OSError:
            return

    def signal(self, signum: int) -> None:
        """Signal its process group; one that has exited is no error."""
        if self.exit_code is not None:
            return
        try:
            os.killpg(self.pid, signum)
        except ProcessLookupError:
            return
        except PermissionError:
            os.kill(self.pid, signum)

    def close(self) -> None:
        """Listen to its output no longer."""
        if self._output >= 0:
            asyncio.get_running_loop().remove_reader(self._output)
            os.close(self._output)
            self._output = -1

    def usage(self) -> Tuple[float, int]:
        """Return CPU seconds and resident bytes, zeros where the system does not tell."""
        try:
            with open("/proc/%d/stat" % self.pid, "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            return 0.0, 0
        ticks = int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")

    def _read(self) -> bool:
        if self._output < 0:
            return False
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return False
        if not data:
            self.close()
            return False
        self.tail.feed(data)
        pass_on(data)
        return True


def pass_on(data: bytes) -> None:
    """Write to the job's own output; where that is closed or full, the tail is what remains."""
    try:
        while data and select.select((), (1,), (), 0)[1]:
            data = data[os.write(1, data[:PIPE_ROOM]) :]
    except OSError:
        return


def exit_reason(exit_code: int) -> str:
    """Say an exit code in words."""
    if exit_code >= 0:
        return "the kernel exited with code %d" % exit_code
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = "signal %d" % -exit_code
    return "the kernel was ended by %s" % name
