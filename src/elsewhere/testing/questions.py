"""What a backend asks of its manager, counted from outside: programs started, connections made, sends."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_STARTS = (
    "subprocess.Popen",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "socket.sendto",
    "socket.sendmsg",
)
_counters: list[Questions] = []
_hooked = False


class Questions:
    """How many there were, in all threads, while it was open."""

    def __init__(self) -> None:
        self.count = 0


@contextmanager
def questions() -> Iterator[Questions]:
    """Count what this process asks of others. Reading files of this machine is no question."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_heard)  # it cannot be taken away again
        _hooked = True
    counter = Questions()
    _counters.append(counter)
    plain = [
        (kind, name, getattr(kind, name))
        for kind in (socket.socket, ssl.SSLSocket)
        for name in ("send", "sendall")
    ]
    for kind, name, method in plain:
        setattr(kind, name, _counting(method))
    try:
        yield counter
    finally:
        for kind, name, method in plain:
            setattr(kind, name, method)
        _counters.remove(counter)


def _heard(event: str, _: tuple[Any, ...]) -> None:
    if _counters and event in _STARTS:
        _count()


def _counting(method: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any) -> Any:
        _count()
        return method(*args)

    return counted


def _count() -> None:
    for counter in _counters:
        counter.count += 1
