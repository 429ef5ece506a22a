"""The pipes of one agent: streams that home opens, each to one of the kernel's sockets."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Dict, Iterable, Mapping, Optional

from .iopub import dial
from .mux import Stream, StreamHandler
from .pipe import Pipe
from .words import MAX_HELLO, Accepted, Opening, WordReader, WordsError, encode, expect

CHANNELS = ("shell", "stdin", "control", "hb")


class _Doorkeeper(StreamHandler):
    """Reads the opening of a stream, then hands the stream on."""

    def __init__(self, stream: Stream, opened: Callable[[Stream, Opening, bytes], None]) -> None:
        self._stream = stream
        self._opened = opened
        self._reader = WordReader(MAX_HELLO)
        stream.handler = self

    def stream_data(self, data: bytes) -> None:
        """Wait for the whole opening."""
        try:
            word, rest = self._reader.first(data)
            self._stream.consumed(len(data) - len(rest))
            if word is not None:
                self._opened(self._stream, expect(word, Opening), rest)
        except WordsError:
            self._stream.reset()


class Pipes:
    """All pipes by name. ``connection`` tells where the kernel listens, None when there is none."""

    def __init__(self, connection: Callable[[], Optional[Dict[str, Any]]]) -> None:
        self._connection = connection
        self._pipes: Dict[str, Pipe] = {}
        self._dials: Dict[str, asyncio.Task[Any]] = {}

    def accept(self, stream: Stream, others: Mapping[str, Callable[[Stream, Opening, bytes], None]]) -> None:
        """Take a stream from home: one for another channel than a pipe's goes to that callable."""

        def opened(stream: Stream, opening: Opening, rest: bytes) -> None:
            others.get(opening.channel, self._open)(stream, opening, rest)

        _Doorkeeper(stream, opened)

    def keep_only(self, names: Iterable[str]) -> None:
        """End the pipes that home no longer holds."""
        for name in set(self._pipes) - set(names):
            self._pipes[name].abort()

    def abort_all(self) -> None:
        """End every pipe: the kernel behind them is gone."""
        for pipe in list(self._pipes.values()):
            pipe.abort()

    def _open(self, stream: Stream, opening: Opening, rest: bytes) -> None:
        pipe = self._pipes.get(opening.pipe)
        connection = self._connection()
        if opening.channel not in CHANNELS or connection is None or (pipe is None and opening.received):
            stream.reset()
            return
        if pipe is None:
            pipe = self._pipes[opening.pipe] = Pipe(opening.pipe, opening.channel, self._ended)
            self._dials[opening.pipe] = asyncio.get_running_loop().create_task(
                self._dial(pipe, connection, opening.channel + "_port")
            )
        accepted = encode(Accepted(pipe.received))
        stream.write(accepted)
        pipe.attach(stream, opening.received, len(accepted))
        if rest:
            pipe.stream_data(rest)

    async def _dial(self, pipe: Pipe, connection: Dict[str, Any], port_name: str) -> None:
        await dial(connection, port_name, lambda: pipe)

    def _ended(self, pipe: Pipe) -> None:
        self._pipes.pop(pipe.name, None)
        task = self._dials.pop(pipe.name, None)
        if task is not None:
            task.cancel()
