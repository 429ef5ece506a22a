"""The way home: dial, prove who we are, and dial again whenever the connection is lost."""

from __future__ import annotations

import asyncio
import random
import ssl
from typing import Any, Callable, Dict, List, Optional, Tuple

from .mux import Mux, Stream, StreamHandler
from .words import Hello, Refused, Welcome, WordReader, WordsError, encode, expect
from .yamux import NoMoreStreams

FIRST_DELAY = 0.05
MAX_DELAY = 15.0
HOPEFUL_DELAY = 1.0
HOPEFUL = 60.0
"""Seconds after a loss in which we dial once a HOPEFUL_DELAY at least: most homes that die come back soon."""
HOME_THERE_DELAY = 1.0
"""Seconds at most between dials of a home that welcomes us: it is there, though it may fail after that."""
STEADY = 5.0
"""Seconds that a connection must last for the next dial to be quick again."""
DIAL_TIMEOUT = 15.0


class HomeRefused(Exception):
    """Home does not want this job; it must end."""


class Talk(StreamHandler):
    """The talk stream of one connection. ``answered`` hears the first word, ``heard`` all others.

    They may come at once, so ``answered`` has done its part before ``heard`` is called.
    """

    def __init__(self, stream: Stream, answered: Callable[[Any], None], heard: Callable[[Any], None]) -> None:
        self.stream = stream
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answered = answered
        self._heard = heard
        self._reader = WordReader()
        stream.handler = self

    def say(self, word: Any) -> None:
        """Send one word."""
        self.stream.write(encode(word))

    def stream_data(self, data: bytes) -> None:
        """The first word answers our hello; the rest are commands."""
        self.stream.consumed(len(data))
        try:
            words = self._reader.feed(data)
        except WordsError as error:
            if not self.answer.done():
                self.answer.set_exception(error)
            self.stream.reset()
            return
        for word in words:
            if not self.answer.done():
                self.answer.set_result(word)
                self._answered(word)
            else:
                self._heard(word)


class Link:
    """Keeps one connection home. The callbacks run on the event loop.

    ``up`` is called with home's welcome and the talk stream of each new connection, ``heard`` with
    each command, ``accept`` with each stream that home opens, ``down`` with the reason of a loss.
    """

    def __init__(
        self,
        home: Dict[str, Any],
        hello: Hello,
        *,
        keepalive: float,
        up: Callable[[Welcome, Talk], None],
        heard: Callable[[Any], None],
        accept: Callable[[Stream], None],
        down: Callable[[str], None],
    ) -> None:
        self.mux: Optional[Mux] = None
        self.problem = ""
        self._hello = hello
        self._keepalive = keepalive
        self._up, self._heard, self._accept, self._down = up, heard, accept, down
        self._name: str = home["name"]
        self._addresses: List[Tuple[str, int]] = [_split(text) for text in home["addresses"]]
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._tls.load_verify_locations(cadata=home["ca"])

    async def run(self) -> None:
        """Stay connected until cancelled; the address that was good last is dialled first.

        Raises HomeRefused when home's no is final.
        """
        delay = FIRST_DELAY
        now = asyncio.get_running_loop().time
        lost = now()
        while True:
            for address in list(self._addresses):
                host, port = address
                begun = now()
                try:
                    if await self._connect_once(host, port):
                        delay = FIRST_DELAY if now() - begun > STEADY else min(delay, HOME_THERE_DELAY)
                        lost = now()
                        self._addresses.remove(address)
                        self._addresses.insert(0, address)
                        break
                except (OSError, ValueError, asyncio.TimeoutError, WordsError, NoMoreStreams) as error:
                    self.problem = "%s:%d: %s" % (host, port, str(error) or type(error).__name__)
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(delay * 2, HOPEFUL_DELAY if now() - lost < HOPEFUL else MAX_DELAY)

    async def _connect_once(self, host: str, port: int) -> bool:
        """Connect and stay until the loss. True if home had welcomed us."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[str] = loop.create_future()

        def lost(reason: str) -> None:
            if not over.done():
                over.set_result(reason)

        def answered(answer: Any) -> None:
            if isinstance(answer, Welcome):
                self.mux = mux
                self.problem = ""
                self._up(answer, talk)

        mux = Mux(client=True, accept=self._accept, lost=lost, keepalive=self._keepalive)
        await asyncio.wait_for(
            loop.create_connection(lambda: mux, host, port, ssl=self._tls, server_hostname=self._name),
            DIAL_TIMEOUT,
        )
        try:
            talk = Talk(mux.open(), answered, self._heard)
            talk.say(self._hello)
            await asyncio.wait({talk.answer, over}, timeout=DIAL_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if not talk.answer.done():
                raise OSError(over.result() if over.done() else "home did not answer our hello")
            answer = talk.answer.result()
            if isinstance(answer, Refused):
                if answer.final:
                    raise HomeRefused(answer.reason)
                raise OSError("home says: %s" % answer.reason)
            expect(answer, Welcome)
            reason = await over
            self.mux = None
            self._down(reason)
            return True
        finally:
            mux.abort("giving up")


def _split(address: str) -> Tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
