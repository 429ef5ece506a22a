"""TLS at home's end: a pump between a socket and a protocol, with no buffer of its own.

asyncio's keeps 256 KiB for each connection, idle or not. All pumps of a switchboard share two buffers,
and take turns with the costly part, the handshake, so that a storm of agents delays nobody else for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

from .changes import Changes

SHARED = 256 * 1024
"""Bytes of the buffer for what comes that all connections of one loop share."""

RECORD = 16 * 1024
"""Bytes of plain text in one record of TLS at most; what a memory BIO holds at once, for it never shrinks."""

BEFORE_TLS = 64 * 1024
"""Bytes that may wait before the handshake is done; an agent says no more than hello by then."""

WAITING = 32
"""Handshakes that wait for their turn, above which no more connections are to be accepted."""

BUDGET = 0.005
"""Seconds of handshakes in one turn of the loop."""


class Pumps:
    """What the pumps of one loop share."""

    def __init__(self, context: ssl.SSLContext) -> None:
        context.num_tickets = 0  # agents do not resume sessions
        self.context = context
        self.wire = memoryview(bytearray(SHARED))
        self.plain = memoryview(bytearray(SHARED + BEFORE_TLS))
        self._waiting: deque[Pump] = deque()
        self._shaken = Changes()
        self._working = False

    def shake_soon(self, pump: Pump) -> None:
        """Go on with this handshake when it is its turn."""
        self._waiting.append(pump)
        if not self._working:
            self._working = True
            asyncio.get_running_loop().call_soon(self._work)

    async def room(self) -> None:
        """Return when so few handshakes wait that another connection may be accepted."""
        while len(self._waiting) >= WAITING:
            await self._shaken.next()

    def _work(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + BUDGET
        while self._waiting:
            self._waiting.popleft().shake()
            if loop.time() >= until:
                break
        self._shaken.notify()
        self._working = bool(self._waiting)
        if self._working:
            loop.call_soon(self._work)


class Pump(asyncio.BufferedProtocol):
    """Gives ``protocol`` a transport of plain bytes once TLS is there. ``failed`` if it never is."""

    __slots__ = (
        "__weakref__",
        "_due",
        "_ended",
        "_failed",
        "_incoming",
        "_outgoing",
        "_protocol",
        "_pumps",
        "_ready",
        "raw",
        "tls",
    )

    def __init__(self, pumps: Pumps, protocol: asyncio.Protocol, failed: Callable[[], None]) -> None:
        self._pumps = pumps
        self._protocol = protocol
        self._failed = failed
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = pumps.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.raw: asyncio.Transport | None = None
        self._ready = False
        self._due = False
        self._ended = False

    # ---- what the socket's transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first word of the handshake, which is the caller's."""
        transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of it
        self.raw = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the shared buffer: it is emptied before another socket is read."""
        return self._pumps.wire

    def buffer_updated(self, nbytes: int) -> None:
        """Take what came."""
        if self.raw is None:
            return
        wire = self._pumps.wire[:nbytes]
        if self._ready:
            self._read(wire)
            return
        self._incoming.write(wire)
        if self._incoming.pending > BEFORE_TLS:
            self.abort()
        elif not self._due:
            self._due = True
            self._pumps.shake_soon(self)

    def eof_received(self) -> None:
        """The far side has hung up, politely or not: the socket is closed."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever knows of this connection, and let go of them: a storm leaves many behind."""
        self.raw = None
        protocol, self._protocol = self._protocol, asyncio.Protocol()
        failed, self._failed = self._failed, _nothing
        if self._ready:
            protocol.connection_lost(exc)
        else:
            failed()

    # ---- TLS

    def shake(self) -> None:
        """Go on with the handshake; when it is done, begin."""
        self._due = False
        if self.raw is None:
            return
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError:
            self._flush()  # the alert, which says what is wrong
            self.raw.close()
            return
        self._flush()
        self._ready = True
        self._protocol.connection_made(_TlsTransport(self, self.raw))
        self._read(memoryview(b""))

    def _read(self, wire: memoryview) -> None:
        """Give the protocol all that is there, decrypted."""
        filled = self._decrypt(0)
        for start in range(0, len(wire), RECORD):
            self._incoming.write(wire[start : start + RECORD])
            filled = self._decrypt(filled)
        if filled:
            self._protocol.data_received(bytes(self._pumps.plain[:filled]))
        if self._ended and self.raw is not None:
            self.raw.close()

    def _decrypt(self, filled: int) -> int:
        """Fill the shared buffer on from there, and return how far."""
        plain = self._pumps.plain
        while not self._ended:
            try:
                count = cast("int", self.tls.read(len(plain) - filled, cast("bytearray", plain[filled:])))
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError:
                count = 0
            filled += count
            self._ended = not count
        return filled

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        if self.raw is None or self.raw.is_closing():
            return
        view, records = memoryview(data), []
        while view:
            view = view[self.tls.write(view[:RECORD]) :]
            records.append(self._outgoing.read())
        self.raw.writelines(records)

    def _flush(self) -> None:
        if self._outgoing.pending and self.raw is not None:
            self.raw.write(self._outgoing.read())

    def abort(self) -> None:
        """Close at once."""
        if self.raw is not None:
            self.raw.abort()

    def close(self) -> None:
        """Say goodbye and close when all has been sent."""
        if self.raw is None or self.raw.is_closing():
            return
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()  # writes the goodbye, and wants to read the answer, for which nobody waits
        self._flush()
        self.raw.close()


class _TlsTransport(asyncio.Transport):
    """What the protocol writes to."""

    __slots__ = ("_pump", "_raw")

    def __init__(self, pump: Pump, raw: asyncio.Transport) -> None:
        super().__init__()
        self._pump = pump
        self._raw = raw

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the socket, or ``ssl_object``."""
        return self._pump.tls if name == "ssl_object" else self._raw.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; what the system does not take at once is kept."""
        self._pump.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send all in as few records as may be."""
        self._pump.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._raw.is_closing()

    def close(self) -> None:
        """Close when all has been sent."""
        self._pump.close()

    def abort(self) -> None:
        """Close at once."""
        self._pump.abort()


def _nothing() -> None:
    """It is over already."""
