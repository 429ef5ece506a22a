"""From a start order to a program that can be executed here: placeholders, files, environment.

Imports little: it runs before the kernel starts.
"""

from __future__ import annotations

import binascii
import json
import os
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
_PLACEHOLDER = re.compile(r"\{([A-Za-z0-9_]+)\}")


class Program:
    """What to execute, where the kernel will listen, and what the user should hear of it."""

    def __init__(
        self,
        argv: List[str],
        env: Dict[str, str],
        cwd: Optional[str],
        connection: Dict[str, Any],
        warnings: List[str],
    ) -> None:
        self.argv = argv
        self.env = env
        self.cwd = cwd
        self.connection = connection
        self.warnings = warnings


def prepare(order: Dict[str, Any], directory: str) -> Program:
    """Write the connection file and the kernelspec's files into ``directory``, fill placeholders.

    ``order`` has argv, env, cwd, transport, key, signature_scheme, kernel_name, placeholders and
    files (name → base64). Raises OSError when the directory cannot be written.
    """
    ip, ports = _listen_where(order["transport"], directory)
    connection: Dict[str, Any] = dict(zip(PORTS, ports))
    connection.update(
        transport=order["transport"],
        ip=ip,
        key=order["key"],
        signature_scheme=order["signature_scheme"],
        kernel_name=order["kernel_name"],
    )
    connection_file = os.path.join(directory, "connection.json")
    _write(connection_file, json.dumps(connection, indent=1).encode())
    known = dict(order["placeholders"])
    known["connection_file"] = connection_file
    resources = os.path.join(directory, "resources")
    known["resource_dir"] = resources
    known["prefix"] = sys.prefix
    for name, content in order["files"].items():
        path = os.path.normpath(os.path.join(resources, name))
        if path.startswith(resources + os.sep):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            _write(path, binascii.a2b_base64(content), 0o700)

    def fill(text: str) -> str:
        return _PLACEHOLDER.sub(lambda found: str(known.get(found.group(1), found.group())), text)

    env = dict(os.environ)
    for name in ("JPY_PARENT_PID", "PYTHONEXECUTABLE"):
        env.pop(name, None)
    env.update(order["env"])
    cwd, warnings = _working_directory(order["cwd"])
    return Program([fill(word) for word in order["argv"]], env, cwd, connection, warnings)


def _working_directory(wanted: Optional[str]) -> Tuple[Optional[str], List[str]]:
    home = os.path.expanduser("~")
    fallback = home if os.path.isdir(home) else None
    if not wanted:
        return fallback, []
    if os.path.isdir(wanted) and os.access(wanted, os.X_OK):
        return wanted, []
    warning = "the working directory %s does not exist where the kernel runs; using %s" % (wanted, home)
    return fallback, [warning]


def _listen_where(transport: str, directory: str) -> Tuple[str, List[int]]:
    if transport == "ipc":
        return os.path.join(directory, "k"), [1, 2, 3, 4, 5]
    return free_ports(len(PORTS))


def free_ports(count: int) -> Tuple[str, List[int]]:
    """Return a random loopback address and ``count`` TCP ports that are free on it right now."""
    import socket

    ip = "127.0.0.1"
    if sys.platform.startswith("linux"):
        ip = "127.%d.%d.%d" % tuple(1 + byte % 254 for byte in os.urandom(3))
    sockets = []
    try:
        for _ in range(count):
            one = socket.socket()
            sockets.append(one)
            one.bind((ip, 0))
        return ip, [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _write(path: str, content: bytes, mode: int = 0o600) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as out:
        out.write(content)
