"""Where agents call home: TLS, the check of who calls, and the way to the right line."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import secrets
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from .agent.mux import LOST, Mux, Stream, StreamHandler
from .agent.words import (
    MAX_HELLO,
    MAX_WORD,
    PROTOCOL,
    SPOKEN,
    Hello,
    Refused,
    Welcome,
    WordReader,
    WordsError,
    encode,
    expect,
)
from .backend import Mark
from .changes import Changes
from .line import Admission, Line
from .listening import Listening
from .tls import Pump, Pumps

HELLO_TIMEOUT = 10.0
"""Seconds for TLS and the hello together."""
BEFORE_HELLO = 2 * MAX_HELLO
"""Bytes that may come from a caller who is not admitted yet."""

STRANGERS = 1000
"""Connections that have not been admitted yet at most; others wait, and cost no open file."""

logger = logging.getLogger(__name__)

Consume = Callable[[Mark, str], Awaitable[None]]
"""Stores that a token was used by the holder of this secret's hash, before the agent is answered.

May be cancelled, and is then called again with the agent's next hello."""


def digest(text: str) -> str:
    """Return what is kept of a token or a secret."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


async def _remember_nothing(mark: Mark, secret_hash: str) -> None:
    """The line itself remembers, which is enough for a home without a ledger."""


@dataclass
class Figures:
    """How many hellos were welcomed, how many of them were a line's second or later, how many were refused;
    and how many connections were lost while their launch was wanted."""

    welcomed: int = 0
    returned: int = 0
    refused: int = 0
    lost: int = 0


class Switchboard:
    """Listens for agents. ``lines`` are the launches that may call, by their mark.

    Until ``knows_all``, a caller who is none of them is told to try again: its launch may yet be read
    from the ledger.
    """

    def __init__(
        self,
        home_id: str,
        tls: ssl.SSLContext,
        *,
        consume: Consume = _remember_nothing,
        keepalive: float = 15.0,
        hello_timeout: float = HELLO_TIMEOUT,
    ) -> None:
        self.home_id = home_id
        self.instance = secrets.token_hex(8)
        self.lines: dict[Mark, Line] = {}
        self.consume = consume
        self.knows_all = True
        self.figures = Figures()
        self._pumps = Pumps(tls)
        self._keepalive = keepalive
        self._hello_timeout = hello_timeout
        self._listening: Listening | None = None
        self._callers: set[_Caller] = set()
        self._strangers: set[_Caller] = set()
        self._fewer = Changes()

    async def listen(self, host: str, port: int) -> int:
        """Listen there and return the port. Raises OSError, for a taken port too."""
        self._listening = Listening(self._room, self._answer)
        return await self._listening.open(host, port)

    def expect(self, mark: Mark, admission: Admission, *, publishes: bool = True) -> Line:
        """Let the agent of this launch call, and return its line."""
        line = self.lines[mark] = Line(mark, admission, publishes=publishes)
        return line

    def forget(self, line: Line, reason: str) -> None:
        """Let it call no more; it is told to end when it does."""
        self.lines.pop(line.mark, None)
        line.end(reason)

    async def aclose(self) -> None:
        """Hang up on everybody. Agents will call again until their orphan grace is over."""
        if self._listening is not None:
            await self._listening.aclose()
        while self._callers:
            await next(iter(self._callers)).aclose()

    async def _room(self) -> None:
        await self._pumps.room()
        while len(self._strangers) >= STRANGERS:
            await self._fewer.next()

    def _answer(self) -> Pump:
        caller = _Caller(self)
        self._callers.add(caller)
        self._strangers.add(caller)
        caller.mux = Mux(
            client=False,
            accept=caller.accept,
            lost=caller.lost,
            keepalive=self._keepalive,
            trust=BEFORE_HELLO,
        )
        caller.pump = Pump(self._pumps, caller.mux, caller.never_came)
        caller.timer = asyncio.get_running_loop().call_later(self._hello_timeout, caller.too_slow)
        return caller.pump

    def left(self, caller: _Caller) -> None:
        """A connection is over."""
        self._callers.discard(caller)
        self.knows(caller)

    def knows(self, caller: _Caller) -> None:
        """A connection is no stranger's any more."""
        self._strangers.discard(caller)
        self._fewer.notify()

    async def admit(self, hello: Hello) -> Line | Refused:
        """Return the line of whoever says this hello, or the refusal."""
        if hello.protocol not in SPOKEN:
            spoken = ", ".join(map(str, SPOKEN))
            return Refused(f"home speaks protocol {spoken}, the agent {hello.protocol}", True)
        try:
            mark = Mark(hello.home_id, hello.kernel_id, hello.launch)
        except ValueError as error:
            return Refused(str(error), True)
        line = self.lines.get(mark)
        if line is None and not self.knows_all:
            return Refused("home is still reading its ledger", False)
        if line is None or hello.home_id != self.home_id:
            return Refused("no such launch is wanted here", True)
        admission = line.admission
        if not hmac.compare_digest(digest(hello.token), admission.token_hash):
            return Refused("the token does not belong to this launch", True)
        secret_hash = digest(hello.secret)
        async with line.admitting:
            if not admission.secret_hash:
                await self.consume(mark, secret_hash)
                admission.secret_hash = secret_hash
        if line.over:
            return Refused(f"this launch is wanted no longer: {line.over}", True)
        if not hmac.compare_digest(secret_hash, admission.secret_hash):
            return Refused("the token has been used by another agent", True)
        return line


class _Caller(StreamHandler):
    """One connection: nothing is believed, and next to nothing buffered, before its hello."""

    mux: Mux
    pump: Pump
    timer: asyncio.TimerHandle

    def __init__(self, switchboard: Switchboard) -> None:
        self._switchboard = switchboard
        self._reader = WordReader(MAX_HELLO)
        self._talk: Stream | None = None
        self._line: Line | None = None
        self._admission: asyncio.Task[None] | None = None

    def accept(self, stream: Stream) -> None:
        """The agent opens one stream, to talk."""
        if self._talk is not None:
            self.mux.abort("a second stream was opened towards home")
            return
        self._talk = stream
        stream.handler = self

    def too_slow(self) -> None:
        """No hello came in time, or not even TLS."""
        self.mux.abort("no hello in time")
        self.pump.abort()

    def never_came(self) -> None:
        """The connection is over before there was TLS, so the mux never hears of it."""
        self.timer.cancel()
        self._switchboard.left(self)
        del self.mux

    def stream_data(self, data: bytes) -> None:
        """The hello, then reports and acknowledgements."""
        assert self._talk is not None
        self._talk.consumed(len(data))
        try:
            for word in self._reader.feed(data):
                self._heard(word)
        except (WordsError, ValueError) as error:
            self.mux.abort(f"protocol error: {error}")

    def stream_ended(self, how: str) -> None:
        """Without talk there is no connection."""
        if how != LOST:
            self.mux.abort("the agent closed its talk stream")

    def _heard(self, word: Any) -> None:
        if self._line is not None:
            self._line.heard(word)
        elif self._admission is None:
            hello = expect(word, Hello)
            self.timer.cancel()
            self._admission = asyncio.get_running_loop().create_task(self._admit(hello))
        else:
            raise WordsError("a word before the answer to hello")

    async def _admit(self, hello: Hello) -> None:
        assert self._talk is not None
        try:
            answer = await self._switchboard.admit(hello)
        except Exception:  # whatever the ledger raises: who is not written down is not let in
            logger.exception("could not store that the token of kernel %s was used", hello.kernel_id)
            answer = Refused("home cannot write its ledger now", False)
        if self.mux.closing:
            return
        if isinstance(answer, Refused):
            logger.warning("refused an agent for kernel %r: %s", hello.kernel_id[:64], answer.reason)
            self._switchboard.figures.refused += 1
            self._talk.write(encode(answer))
            self.mux.close(answer.reason)
            return
        self._switchboard.knows(self)
        self._switchboard.figures.welcomed += 1
        self._switchboard.figures.returned += bool(answer.protocol)
        self._line = answer
        self._reader.limit = MAX_WORD
        self.mux.trust = None
        answer.host = hello.host
        welcome = Welcome(min(PROTOCOL, hello.protocol), self._switchboard.instance, answer.pipe_names)
        self._talk.write(encode(welcome))
        answer.attach(self.mux, self._talk, welcome.protocol)

    def lost(self, reason: str) -> None:
        """The connection is over."""
        self.timer.cancel()
        if self._admission is not None:
            self._admission.cancel()
        self._switchboard.left(self)
        if self._line is not None:
            self._switchboard.figures.lost += not self._line.over
            self._line.detach(self.mux, reason)

    async def aclose(self) -> None:
        """Hang up."""
        self.timer.cancel()
        if self._line is not None:
            self._line.hang_up_politely("home is closing")
        else:
            self.mux.abort("home is closing")
            self.pump.abort()
        self._switchboard.left(self)
        if self._admission is not None:
            self._admission.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._admission
