"""A connection that is read whatever holds up the event loop: then a thread stands in.

A PUB socket drops what its subscriber leaves lying, and a fifth of a second may be too long. So neither a
disk that does not answer nor a long turn of the loop may stop the reading.
"""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from collections import deque
from typing import Deque

MOST = 256 * 1024
"""Bytes that are read, or handed to the protocol, at one time."""

HELD_UP = 0.02
"""Seconds that bytes may lie there before the thread stands in. Much less would cost the loop its pace."""

AGAIN = 0.005
"""Seconds between two readings by the thread."""


class Drain(asyncio.Transport):
    """Takes over a connected socket. The protocol is called by the loop, as by any transport.

    What the thread has read waits for the loop in memory, and has no limit but the length of the hold-up.
    """

    def __init__(self, sock: socket.socket, protocol: asyncio.Protocol) -> None:
        super().__init__()
        sock.setblocking(False)
        self._sock = sock
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._came: Deque[bytes] = deque()
        self._order = threading.Lock()  # what is read first shall come first
        self._turns = 0
        self._ended = False
        self._closing = False
        self._arrival = select.poll()
        self._arrival.register(sock, select.POLLIN)
        protocol.connection_made(self)
        self._loop.add_reader(sock, self._readable)
        try:
            threading.Thread(target=self._stand_in, name="drain", daemon=True).start()
        except RuntimeError:
            return  # a job may have no more threads than it has: the loop reads alone

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes that are few; a far side that does not take even those is given up."""
        try:
            if self._sock.send(data) < len(data):
                self.abort()
        except BlockingIOError:
            self.abort()
        except OSError:
            return  # the reading hears of it too, after what came before

    def is_closing(self) -> bool:
        """Whether nothing is handed over any more."""
        return self._closing

    def abort(self) -> None:
        """Hand over nothing more; the protocol hears of the end before long."""
        if not self._closing:
            self._closing = True
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # the far side was first

    def _readable(self) -> None:
        self._turns += 1
        self._receive()
        self._hand_over()

    def _stand_in(self) -> None:
        while not self._ended:
            turns = self._turns
            self._arrival.poll()
            time.sleep(HELD_UP)
            while self._turns == turns and self._receive():
                time.sleep(AGAIN)
            if self._came:
                try:
                    self._loop.call_soon_threadsafe(self._hand_over)
                except RuntimeError:
                    return  # the loop is closed

    def _receive(self) -> bool:
        """Take what lies there; returns whether there was anything, and it was not the end."""
        with self._order:
            if self._ended:
                return False
            try:
                data = self._sock.recv(MOST)
            except BlockingIOError:
                return False
            except OSError:
                data = b""
            self._ended = not data
            self._came.append(data)
            return not self._ended

    def _hand_over(self) -> None:
        for _ in range(len(self._came)):
            if not self._came:
                return
            data = self._take()
            if not data:
                self._finish()
            elif not self._closing:
                self._protocol.data_received(data)

    def _take(self) -> bytes:
        """Return what came, pieces that are small as one; nothing at the end."""
        data = self._came.popleft()
        while self._came and self._came[0] and len(data) + len(self._came[0]) <= MOST:
            data += self._came.popleft()
        return data

    def _finish(self) -> None:
        self._closing = True
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self._protocol.connection_lost(None)
