"""The unix sockets of one kernel, to which jupyter_client connects by ``ipc://``.

Stock cleanup deletes ipc paths at every restart. So each path that we give away is a link to the
socket, and ``publish`` makes the links anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from .errors import ElsewhereError
from .rundir import LONGEST_SOCKET_PATH

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


class Endpoints:
    """Listens on one socket a channel from ``open`` to ``close``.

    ``connected`` is called with the channel for each local connection, and returns its protocol.
    """

    def __init__(self, directory: Path, connected: Callable[[str], asyncio.BaseProtocol]) -> None:
        self._directory = directory / secrets.token_hex(4)
        self._connected = connected
        self._servers: list[asyncio.Server] = []
        if len(os.fsencode(self._directory / "k-1")) > LONGEST_SOCKET_PATH:
            raise ElsewhereError(
                f"the path {self._directory} is too long for unix sockets; set XDG_RUNTIME_DIR"
            )

    @property
    def ip(self) -> str:
        """What ``ip`` is in connection info of transport ipc: the path without ``-<port>``."""
        return str(self._directory / "k")

    @property
    def ports(self) -> dict[str, int]:
        """The port of each channel, as connection info names them."""
        return {f"{channel}_port": port for port, channel in enumerate(CHANNELS, 1)}

    async def open(self) -> None:
        """Listen, and make the links. May be called again."""
        if self._servers:
            return
        self._directory.mkdir(mode=0o700)
        loop = asyncio.get_running_loop()
        for port, channel in enumerate(CHANNELS, 1):

            def protocol(channel: str = channel) -> asyncio.BaseProtocol:
                return self._connected(channel)

            path = str(self._directory / f"s{port}")
            self._servers.append(await loop.create_unix_server(protocol, path, backlog=128))
        self.publish()

    def publish(self) -> None:
        """Make the links that are not there, if anybody listens."""
        for port in range(1, len(self._servers) + 1):
            with contextlib.suppress(FileExistsError):
                (self._directory / f"k-{port}").symlink_to(f"s{port}")

    def close(self) -> None:
        """Listen no more and remove the paths. May be called more than once."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        shutil.rmtree(self._directory, ignore_errors=True)
