"""What a law has run instead of an agent: it calls the law, says what it was given, and obeys.

Runs in the job, alone: Python 3.8 or newer and its standard library. It ends when the law hangs up.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import socket
import sys
import time
import zipfile
from typing import Any

MEMBER = "probe.json"


def main() -> None:
    is_open = open_to_others(os.path.abspath(sys.argv[0]))
    with open(sys.argv[0], "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    with zipfile.ZipFile(sys.argv[0]) as archive:
        given = json.loads(archive.read(MEMBER))
    os.unlink(sys.argv[0])
    if given["stubborn"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    call = _dial(given["addresses"], given["patience"])
    if given["stubborn"] and os.fork() == 0:
        _hold_on(call)

    def tell(**words: Any) -> None:
        call.sendall(json.dumps(words).encode() + b"\n")

    signal.signal(signal.SIGUSR1, lambda signum, _: tell(signal=signum))
    tell(
        mark=given["mark"],
        secret=given["secret"],
        digest=digest,
        open_to_others=is_open,
        host=socket.gethostname(),
        shown=[*_shown_to_others(), *sys.argv, *(f"{name}={value}" for name, value in os.environ.items())],
    )
    for line in call.makefile("rb"):
        order = json.loads(line)
        for printed in order.get("print", ()):
            print(printed, flush=True)  # noqa: T201 - the job's log is what this is for
        if "kill" in order:
            os.kill(os.getpid(), order["kill"])
        if "exit" in order:
            sys.exit(order["exit"])
        tell(done=True)


def _hold_on(call: socket.socket) -> None:
    """Be a child that outlives its parent: the call lasts until this process is over too."""
    hung_up = select.poll()
    hung_up.register(call, select.POLLRDHUP)
    hung_up.poll()
    os._exit(0)


def _dial(addresses: list[tuple[str, int]], patience: float) -> socket.socket:
    deadline = time.monotonic() + patience
    while True:
        for host, port in addresses:
            try:
                return socket.create_connection((host, port))
            except OSError as error:
                if time.monotonic() > deadline:
                    sys.exit(f"no law answers at {host}:{port}: {error}")
        time.sleep(0.1)


def open_to_others(path: str) -> bool:
    """Whether other users can read this file: it lets them, and so do all directories above it."""
    if not os.stat(path).st_mode & 0o044:
        return False
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        if not os.stat(path).st_mode & 0o011:
            return False
    return True


def _shown_to_others() -> list[str]:
    """The command lines of this process and of those that started it, where the system has /proc."""
    found, pid = [], os.getpid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                found.append(file.read().decode(errors="replace").replace("\0", " "))
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b") ")[2].split()[1])
        except OSError:
            break
    return found


if __name__ == "__main__":
    main()
