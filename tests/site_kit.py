"""A site of its own for each test: Jupyter's directories, kernelspecs, a place for jobs, and a witness.

The witness looks at /proc and at the disk, never at what our own code believes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from elsewhere.core import Core

PATIENCE = 60.0
"""Seconds after which something that was to happen is believed not to happen: the machine may be busy."""

IPYKERNEL = (sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}")
STUB = (sys.executable, "-SE", str(Path(__file__).with_name("stub_kernel.py")), "{connection_file}")
"""A light kernel: see stub_kernel.py."""


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Return once the condition holds; fail the test, saying what did not happen, after that time."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {patience:g} s: {what}")
        time.sleep(0.02)


class Site:
    """One person's account with nothing in it; all below ``root``, which every process of it names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runtime = root / "x"
        self.jobs = root / "j"
        self.work = root / "work dir"
        self._listening = listening()
        for path in (self.runtime, self.jobs, self.work):
            path.mkdir(mode=0o700)

    @property
    def environ(self) -> dict[str, str]:
        """The variables that make a process one of this site."""
        return {
            "XDG_RUNTIME_DIR": str(self.runtime),
            "JUPYTER_PLATFORM_DIRS": "1",
            "JUPYTER_PATH": str(self.root / "share"),
            "JUPYTER_DATA_DIR": str(self.root / "data"),
            "JUPYTER_CONFIG_DIR": str(self.root / "config"),
            "JUPYTER_CONFIG_PATH": "",
            "JUPYTER_RUNTIME_DIR": str(self.root / "runtime"),
            "IPYTHONDIR": str(self.root / "ipython"),
        }

    def spec(
        self,
        name: str = "away",
        argv: Sequence[str] = IPYKERNEL,
        *,
        env: Mapping[str, str] | None = None,
        config: Mapping[str, object] | None = None,
        language: str = "python",
        interrupt_mode: str = "signal",
        **options: object,
    ) -> str:
        """Write a kernelspec with our stanza and return its name."""
        stanza = config or {"backend": "local", "directory": str(self.jobs), "options": options}
        spec = {
            "argv": list(argv),
            "display_name": name,
            "language": language,
            "interrupt_mode": interrupt_mode,
            "env": {"IPYTHONDIR": str(self.root / "ipython"), **(env or {})},
            "metadata": {"kernel_provisioner": {"provisioner_name": "elsewhere", "config": stanza}},
        }
        path = self.root / "share" / "kernels" / name / "kernel.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(spec), encoding="utf-8")
        return name

    def toml(self, text: str) -> None:
        """Write elsewhere.toml."""
        path = self.root / "config" / "elsewhere.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    @contextmanager
    def python(self, program: str) -> Iterator[subprocess.Popen[str]]:
        """Run a program in an interpreter of its own, killed at the end if it still runs."""
        argv = [sys.executable, "-c", program]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    # ---- the witness

    def processes(self) -> dict[int, str]:
        """The processes of this site, by pid, other than this one."""
        mark = b"XDG_RUNTIME_DIR=" + os.fsencode(self.runtime)
        found = {}
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            if pid != os.getpid() and mark in read_proc(pid, "environ").split(b"\0"):
                found[pid] = read_proc(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")
        return found

    def job_processes(self, word: str = "") -> list[int]:
        """The processes that belong to a job, whose command line holds the word."""
        return [
            pid
            for pid, argv in self.processes().items()
            if word in argv and b"ELSEWHERE_JOB=" in read_proc(pid, "environ")
        ]

    def agents(self) -> list[int]:
        """The agents: those that run a parcel."""
        return self.job_processes("parcel.pyz")

    def left(self, *, home_lives: bool = False) -> list[str]:
        """All that is still there of any kernel; what a living home holds for itself is not counted."""
        left = [f"process {pid}: {argv}" for pid, argv in self.processes().items()]
        left += [f"zombie {pid}" for pid in zombies()]
        left += [f"file {path}" for path in self.jobs.iterdir()]
        homes = self.runtime / "elsewhere-home"
        for path in self.runtime.rglob("*"):
            in_home = homes in path.parents
            own = path.parent == homes or (path.name == "lock" and path.parent.parent == homes)
            if path != homes and not (in_home and own and home_lives):
                left.append(f"file {path}")
        if not home_lives:
            left += [f"listening socket {inode}" for inode in listening() - self._listening]
        return left

    def expect_nothing_left(self, *, home_lives: bool = False) -> None:
        """Wait until nothing is left of any kernel."""
        deadline = time.monotonic() + PATIENCE
        while left := self.left(home_lives=home_lives):
            if time.monotonic() > deadline:
                pytest.fail("\n".join(["this is left:", *left]))
            time.sleep(0.05)

    def clear(self) -> None:
        """Remove everything by force."""
        self.kill_all()
        shutil.rmtree(self.root, ignore_errors=True)

    def kill_all(self) -> None:
        """Kill every process, as when the machine is started anew, and forget what it left on disk."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        until(lambda: not self.processes(), "all processes are gone")
        for path in (*self.jobs.iterdir(), *self.runtime.iterdir()):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def new_site() -> Iterator[Site]:
    """Be at a site of one's own. At its end this process's home is closed and nothing may be left."""
    root = Path(tempfile.mkdtemp(prefix="ew", dir="/tmp"))
    site = Site(root)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in site.environ.items():
            patch.setenv(name, value)
        patch.delenv("ELSEWHERE_CONFIG", raising=False)
        patch.delenv("JUPYTER_PREFER_ENV_PATH", raising=False)
        try:
            yield site
            close_home()
            site.expect_nothing_left()
        finally:
            close_home()
            site.clear()


def home() -> Any:
    """The home of this process, with all its privates, for tests that look whether it forgot."""
    core = Core._shared
    assert core is not None
    return core.home


def close_home() -> None:
    """End the home of this process, if there is one; the next launch makes another."""
    core, Core._shared = Core._shared, None
    if core is not None:
        core.close()


def read_proc(pid: int, name: str) -> bytes:
    """What /proc says of a process; nothing once that is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def gone(pid: int) -> bool:
    """Whether a process is over; a zombie is."""
    state = read_proc(pid, "stat").rpartition(b")")[2].split()[:1]
    return state in ([], [b"Z"], [b"X"])


def zombies() -> list[int]:
    """Children of this process that nobody has waited for."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        fields = read_proc(pid, "stat").rpartition(b")")[2].split()
        if fields[:1] == [b"Z"] and int(fields[1]) == os.getpid():
            found.append(pid)
    return found


def listening() -> set[str]:
    """The TCP sockets on which this process listens."""
    ours = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            ours.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in read_proc(os.getpid(), f"net/{table}").decode().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in ours:
                found.add(fields[9])
    return found
