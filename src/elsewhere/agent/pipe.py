"""A byte stream between a local socket and the far side that survives the loss of the link.

Both ends keep what the far side has not confirmed (bounded by the stream's window), and after a
reconnection each sends what the other lacks: a reply that was on its way is not lost.
"""

from __future__ import annotations

import asyncio
from typing import Callable, List, Optional, cast

from .mux import CLOSED, LOST, Stream, StreamHandler

HELD = 256 * 1024
"""Bytes read from the local socket and not yet confirmed, above which reading pauses."""


class Pipe(asyncio.Protocol, StreamHandler):
    """One end. It is the protocol of the local socket and the handler of the stream.

    ``ended`` is called once, when the pipe is over: closed from either side, or broken.
    """

    def __init__(self, name: str, channel: str, ended: Callable[[Pipe], None]) -> None:
        self.name = name
        self.channel = channel
        self.received = 0
        self._ended: Optional[Callable[[Pipe], None]] = ended
        self._local: Optional[asyncio.Transport] = None
        self._before_local: List[bytes] = []
        self._local_over = False
        self._far_over = False
        self._local_full = False
        self._stream: Optional[Stream] = None
        self._opening: Optional[Stream] = None
        self._kept = bytearray()
        self._confirmed = 0
        self._owed = 0
        self._foreign = 0
        self._never_attached = True

    # ---- the local socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The local socket is there: hand over what came for it before."""
        transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of it
        self._local = transport
        if self._ended is None:
            transport.abort()
            return
        for data in self._before_local:
            transport.write(data)
        self._before_local.clear()
        self._give_credit()
        if self._far_over:
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Keep it until confirmed, and send it if there is a link."""
        self._kept += data
        if self._stream is not None:
            self._stream.write(data)
        if len(self._kept) > HELD and self._local is not None:
            self._local.pause_reading()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """The local socket is over: the far side shall hear of it after the last byte."""
        self._local = None
        self._local_over = True
        if self._stream is not None:
            self._stream.close()
            self._give_credit()
            self._finish()
        elif self._never_attached and self._opening is None:
            self._finish()

    def pause_writing(self) -> None:
        """The local reader is slow: give no more credit."""
        self._local_full = True

    def resume_writing(self) -> None:
        """The local reader has caught up."""
        self._local_full = False
        self._give_credit()

    # ---- the far side

    @property
    def attached(self) -> bool:
        """Whether a stream carries it, or is being opened for it."""
        return self._stream is not None or self._opening is not None

    def opening(self, stream: Stream) -> None:
        """This stream is being opened for it; ``attach`` follows, or the stream's end."""
        self._opening = stream

    def attach(self, stream: Stream, far_received: int, said: int) -> None:
        """Go on over this stream: the far side has ``far_received`` bytes of ours.

        ``said`` bytes were written to the stream before, which are not the pipe's.
        """
        self._opening = None
        self._never_attached = False
        missing = far_received - self._confirmed
        if not 0 <= missing <= len(self._kept):
            stream.reset()
            self.abort()
            return
        self._confirm(missing)
        self._stream = stream
        self._owed = 0
        self._foreign = said
        stream.handler = self
        stream.write(bytes(self._kept))
        if self._local_over:
            stream.close()
            self._finish()

    def stream_data(self, data: bytes) -> None:
        """Pass it on to the local socket."""
        self.received += len(data)
        self._owed += len(data)
        if self._local is not None:
            self._local.write(data)
            if not self._local_full:
                self._give_credit()
        elif not self._local_over:
            self._before_local.append(data)
        else:
            self._give_credit()  # nobody reads it; the far side shall come to its end all the same

    def stream_credit(self, delta: int) -> None:
        """The far side has taken this much: it need not be kept any longer."""
        foreign = min(delta, self._foreign)
        self._foreign -= foreign
        self._confirm(min(delta - foreign, len(self._kept)))

    def stream_ended(self, how: str) -> None:
        """Closed or reset: the pipe is over. A lost link: keep everything until ``attach``."""
        stream, self._stream, self._opening = self._stream or self._opening, None, None
        if how == LOST:
            return
        self._far_over = True
        if stream is not None and how == CLOSED:
            stream.close()
        if self._local is not None:
            self._local.close()
        self._finish()

    def abort(self) -> None:
        """End it now, on both sides."""
        stream, self._stream, self._opening = self._stream or self._opening, None, None
        if stream is not None:
            stream.reset()
        if self._local is not None:
            self._local.abort()
        self._finish()

    def _give_credit(self) -> None:
        if self._stream is not None and self._owed:
            owed, self._owed = self._owed, 0
            self._stream.consumed(owed)

    def _confirm(self, count: int) -> None:
        del self._kept[:count]
        self._confirmed += count
        if self._local is not None and len(self._kept) <= HELD // 2:
            self._local.resume_reading()

    def _finish(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)
