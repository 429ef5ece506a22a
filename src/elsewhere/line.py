"""One launch's line home: what is known of its agent, and what passes to and fro.

It lives from before the submit to the end of the job. Connections of the agent come and go.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .agent.mux import Mux, Stream, StreamHandler
from .agent.pipe import Pipe
from .agent.words import (
    BATCH,
    MAILBOXES,
    MAX_HELLO,
    RECEIPT,
    Accepted,
    Ack,
    Command,
    Opening,
    Report,
    WordReader,
    WordsError,
    encode,
    expect,
)
from .agent.yamux import NoMoreStreams
from .agent.zmtp import ZmtpError, message_ends
from .backend import Mark
from .changes import Changes
from .errors import KernelGone
from .mailbox import WINDOW as MAILBOX_WINDOW
from .mailbox import Mailbox, MailboxStream
from .old_agent import PublishedMailbox
from .publisher import Publisher

IOPUB_WINDOW = 1024 * 1024
"""Bytes of output on the way at most: enough for a long fat route, little enough to hold for many."""

RECEIPT_DELAY = 0.05
RECEIPT_BYTES = 256 * 1024
"""A receipt only frees the agent's spool, and wakes two processes: so it is given for many messages at
once, after this time or this much, whichever comes first."""


@dataclass
class Admission:
    """What admits an agent: hashes only. ``secret_hash`` is empty until the token is used."""

    token_hash: str
    secret_hash: str = ""


class Line:
    """Home's end. ``changes`` tells of every new report, connection and loss.

    ``open_from``: the start whose kernel local connections are for. ``sockets``: where the local
    endpoints are, once ``let_in`` has opened them. ``publishes``: whether what the kernel publishes is
    wanted by local subscribers; it is as soon as one connects.
    """

    def __init__(self, mark: Mark, admission: Admission, *, publishes: bool = True) -> None:
        self.mark = mark
        self.admission = admission
        self.admitting = asyncio.Lock()
        self.changes = Changes()
        self.report: Report | None = None
        self.connected = False
        self.host = ""
        self.loss = ""
        self.over = ""
        self.publisher = Publisher(self._delivered, self._give_credit)
        self.publishes = publishes
        self.sockets: Mapping[str, Any] = {}
        self.let_in: Callable[[], Awaitable[None]] | None = None
        self.protocol = 0
        self._mailboxes: dict[str, Mailbox] = {}
        self._published: dict[str, PublishedMailbox] = {}
        self._mux: Mux | None = None
        self._talk: Stream | None = None
        self._iopub: _IopubStream | None = None
        self._pipes: dict[str, Pipe] = {}
        self._commands: dict[int, tuple[Command, asyncio.Future[None]]] = {}
        self._last_command = 0
        self.open_from = 0

    # ---- what the owner of the kernel asks

    def command(self, verb: str, **fields: Any) -> asyncio.Future[None]:
        """Have the agent do something once, now or after its next connection.

        The future resolves when it is done; fails with KernelGone when the job is over first.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.over:
            future.set_exception(KernelGone(self.over))
            return future
        self._last_command += 1
        command = Command(self._last_command, verb, **fields)
        self._commands[command.number] = (command, future)
        if self._talk is not None:
            self._talk.write(encode(command))
        return future

    def start(self, order: Mapping[str, Any]) -> None:
        """Have the agent start another kernel process in the same job.

        Local connections other than iopub are closed, and new ones wait until it is ready.
        """
        self.open_from = order["start"]
        for box in self._mailboxes.values():
            box.set_ready(False)
        for pipe in list(self._pipes.values()):
            pipe.abort()
        _ignore(self.command("start", order=dict(order)))

    @property
    def caller(self) -> tuple[str, str] | None:
        """The address that the agent calls from and the version of TLS, while it is connected."""
        transport = self._mux.transport if self._mux is not None else None
        if transport is None:
            return None
        return str(transport.get_extra_info("peername")[0]), transport.get_extra_info("ssl_object").version()

    @property
    def ready(self) -> bool:
        """Whether the kernel of the last start order listens."""
        report = self.report
        return report is not None and report.phase == "ready" and report.start >= self.open_from

    def connect(self, channel: str) -> asyncio.BaseProtocol:
        """Return the protocol object for a new local connection to this channel.

        Once the line is over, the connection is closed at once.
        """
        if channel == "iopub" and not self.over:
            self.publishes = True
            self._open_iopub()
            return self.publisher.connect()
        pipe = Pipe(secrets.token_hex(8), channel, self._pipe_ended)
        self._pipes[pipe.name] = pipe
        if self.over:
            pipe.abort()
        elif self.ready:
            self._open_pipe(pipe)
        return pipe

    def end(self, reason: str) -> None:
        """The job is over, or nobody cares any more: drop the connection and all that waits."""
        if self.over:
            return
        self.over = reason
        for _, future in self._commands.values():
            if not future.done():
                future.set_exception(KernelGone(reason))
                _ignore(future)
        self._commands.clear()
        for pipe in list(self._pipes.values()):
            pipe.abort()
        self.publisher.close()
        for box in list(self._mailboxes.values()):
            box.lost()
            self.remove_mailbox(box)
        if self._mux is not None:
            self._mux.abort(reason)
        self.changes.notify()

    def add_mailbox(self, box: Mailbox) -> None:
        """Have this mailbox served, now or when the agent is connected."""
        self._mailboxes[box.name] = box
        box.set_ready(self.ready)
        if self._mux is not None:
            self._open_mailbox(box, self._mux)

    def remove_mailbox(self, box: Mailbox) -> None:
        """Serve it no more."""
        if self._mailboxes.get(box.name) is box:
            del self._mailboxes[box.name]
            published = self._published.pop(box.name, None)
            if published is not None:
                published.close(for_good=True)

    # ---- what the switchboard brings

    def attach(self, mux: Mux, talk: Stream, protocol: int) -> None:
        """The agent has been admitted on this connection; an older one is superseded."""
        if self._mux is not None:
            old, self._mux = self._mux, None
            old.drop("the agent has connected anew")
        self._mux = mux
        self._talk = talk
        self.protocol = protocol
        self.connected = True
        self.loss = ""
        for command, _ in list(self._commands.values()):
            talk.write(encode(command))
        self._open_iopub()
        for box in list(self._mailboxes.values()):
            self._open_mailbox(box, mux)
        for pipe in list(self._pipes.values()):
            if self.ready:
                self._open_pipe(pipe)
        self.changes.notify()

    @property
    def pipe_names(self) -> list[str]:
        """The pipes that are to go on over a new connection."""
        return list(self._pipes)

    def detach(self, mux: Mux, reason: str) -> None:
        """The connection is lost."""
        if mux is not self._mux:
            return
        self._mux = self._talk = self._iopub = None
        for box in self._mailboxes.values():
            if box.name not in self._published:
                box.lost()
        self.connected = False
        self.loss = reason
        self.changes.notify()

    def heard(self, word: Any) -> None:
        """A word of the agent. Raises WordsError for one that only home may say."""
        if isinstance(word, Report):
            was_ready = self.ready
            self.publisher.greet(_welcome(word))
            self.report = word
            if word.phase == "ended":
                self.end(word.reason)
                return
            if self.ready != was_ready:
                for box in list(self._mailboxes.values()):
                    box.set_ready(self.ready)
            if self.ready and not was_ready:
                for pipe in list(self._pipes.values()):
                    self._open_pipe(pipe)
            elif was_ready and not self.ready:
                for pipe in list(self._pipes.values()):
                    pipe.abort()
            self.changes.notify()
        elif isinstance(word, Ack):
            _, future = self._commands.pop(word.number, (None, None))
            if future is not None and not future.done():
                if word.error:
                    future.set_exception(KernelGone(word.error))
                else:
                    future.set_result(None)
        else:
            raise WordsError(f"home does not understand {type(word).__name__}")

    def hang_up(self, reason: str) -> None:
        """End the connection; the agent may call again."""
        if self._mux is not None:
            self._mux.abort(reason)

    def hang_up_politely(self, reason: str) -> None:
        """End the connection, and let the agent know before what need not be sent to the next home."""
        if self._iopub is not None:
            self._iopub.flush_receipt()
        for box in self._mailboxes.values():
            box.flush_receipt()
        if self._mux is not None:
            self._mux.close(reason)

    def _open_iopub(self) -> None:
        if self._mux is not None and self._iopub is None and self.publishes:
            stream = self._mux.open(window=IOPUB_WINDOW)
            self._iopub = _IopubStream(self, stream, self.publisher.last)

    def _open_mailbox(self, box: Mailbox, mux: Mux) -> None:
        if self.protocol >= MAILBOXES:
            try:
                MailboxStream(box, mux.open(window=MAILBOX_WINDOW))
            except NoMoreStreams:
                self.hang_up("too many streams")
        elif box.name not in self._published:
            self.publishes = True
            self._open_iopub()
            self._published[box.name] = PublishedMailbox(box, self.publisher, self.sockets, self.let_in)

    def _open_pipe(self, pipe: Pipe) -> None:
        if self._mux is None or pipe.attached:
            return
        try:
            _PipeOpening(pipe, self._mux.open())
        except NoMoreStreams:
            pipe.abort()

    def _pipe_ended(self, pipe: Pipe) -> None:
        self._pipes.pop(pipe.name, None)

    def _delivered(self, number: int) -> None:
        if self._iopub is not None:
            self._iopub.receipt(number)

    def _give_credit(self) -> None:
        if self._iopub is not None:
            self._iopub.give_credit()


class _PipeOpening(StreamHandler):
    """Waits for the agent's answer to the opening of a pipe, then lets the pipe go on."""

    def __init__(self, pipe: Pipe, stream: Stream) -> None:
        self._pipe = pipe
        self._stream = stream
        self._reader = WordReader(MAX_HELLO)
        stream.handler = self
        pipe.opening(stream)
        self._opening = encode(Opening(pipe.channel, pipe.name, pipe.received))
        stream.write(self._opening)

    def stream_data(self, data: bytes) -> None:
        try:
            word, rest = self._reader.first(data)
            if word is None:
                self._stream.consumed(len(data))
                return
            accepted = expect(word, Accepted)
        except WordsError:
            self._pipe.abort()
            return
        self._stream.consumed(len(data) - len(rest))
        self._pipe.attach(self._stream, accepted.received, len(self._opening))
        if rest:
            self._pipe.stream_data(rest)

    def stream_ended(self, how: str) -> None:
        self._pipe.stream_ended(how)


class _IopubStream(StreamHandler):
    """Cuts the iopub stream into batches and gives them to the publisher."""

    def __init__(self, line: Line, stream: Stream, received: int) -> None:
        self._line = line
        self._stream = stream
        self._reader: WordReader | None = WordReader(MAX_HELLO)
        self._parts: list[bytes] = []
        self._size = 0
        self._need = BATCH.size
        self._header: tuple[int, int, int] | None = None
        self._owed = 0
        self._receipt_due = 0
        self._receipt_timer: asyncio.TimerHandle | None = None
        self._without_receipt = 0
        stream.handler = self
        stream.write(encode(Opening("iopub", "", received)))

    def stream_data(self, data: bytes) -> None:
        try:
            self._receive(data)
        except (WordsError, ZmtpError) as error:
            self._line.hang_up(f"protocol error in the kernel's output: {error}")

    def _receive(self, data: bytes) -> None:
        self._owed += len(data)
        if self._reader is not None:
            word, data = self._reader.first(data)
            if word is None:
                self.give_credit()
                return
            expect(word, Accepted)
            self._reader = None
            if self._line.publisher.delivered:
                self.receipt(self._line.publisher.delivered)
        self._parts.append(data)
        self._size += len(data)
        while self._size >= self._need:
            whole = b"".join(self._parts) if len(self._parts) > 1 else self._parts[0]
            self._take(whole)
        if not self._line.publisher.crowded:
            self.give_credit()

    def _take(self, data: bytes) -> None:
        """Publish all batches that are complete in ``data``, and keep the rest."""
        position = 0
        while True:
            if self._header is None:
                if len(data) - position < BATCH.size:
                    self._need = BATCH.size
                    break
                self._header = BATCH.unpack_from(data, position)
                position += BATCH.size
            first, count, size = self._header
            if len(data) - position < size:
                self._need = size
                break
            wire = data[position : position + size]
            position += size
            self._header = None
            self._without_receipt += size
            last = first + count - 1
            known = self._line.publisher.last
            if first <= known < last:
                wire = wire[message_ends(wire)[known - first] :]
            if known < last:
                self._line.publisher.publish(last, wire)
        rest = data[position:]
        self._parts = [rest] if rest else []
        self._size = len(rest)

    def give_credit(self) -> None:
        """What came has been taken."""
        owed, self._owed = self._owed, 0
        self._stream.consumed(owed)

    def receipt(self, number: int) -> None:
        """Tell the agent, before long, how far messages were delivered."""
        self._receipt_due = number
        if self._without_receipt >= RECEIPT_BYTES:
            self._send_receipt()
        elif self._receipt_timer is None:
            loop = asyncio.get_running_loop()
            self._receipt_timer = loop.call_later(RECEIPT_DELAY, self._send_receipt)

    def flush_receipt(self) -> None:
        """Send the receipt that is due now."""
        if self._receipt_timer is not None:
            self._send_receipt()

    def _send_receipt(self) -> None:
        if self._receipt_timer is not None:
            self._receipt_timer.cancel()
            self._receipt_timer = None
        self._without_receipt = 0
        self._stream.write(RECEIPT.pack(self._receipt_due))


def _welcome(report: Report) -> bytes:
    """Return the kernel's welcome, the wire of whole messages."""
    try:
        wire = base64.b64decode(report.welcome, validate=True)
        message_ends(wire)
    except (ValueError, ZmtpError) as error:
        raise WordsError(f"a welcome that is no message: {error}") from error
    return wire


def _ignore(future: asyncio.Future[None]) -> None:
    """Its failure is told otherwise; asyncio shall not complain that nobody looked."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
