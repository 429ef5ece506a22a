"""The switchboard: who is let in, who is not and why, and that nobody disturbs the others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_kit import IDENTITY, Home, open_home, until
from elsewhere.agent.link import Talk
from elsewhere.agent.mux import Mux, Stream
from elsewhere.agent.words import PROTOCOL, Ack, Hello, Refused, Report, Welcome, encode
from elsewhere.backend import Mark
from elsewhere.identity import Identity
from elsewhere.line import Line

MARK = Mark(IDENTITY.home_id, "kernel", 1)
HELLO = Hello(PROTOCOL, IDENTITY.home_id, "kernel", 1, "token", "secret", "0.1", "node")
PING = b"\0\2\0\1" + bytes(8)
OPEN = b"\0\1\0\1\0\0\0\1" + bytes(4)


def tls_of(authority: str = IDENTITY.authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority)
    return context


TLS = tls_of()


class Caller:
    """Somebody who dials the switchboard by the agent's own means."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.streams: list[Stream] = []
        self.heard: list[Any] = []
        self.mux = Mux(client=True, accept=self.streams.append, lost=self._lost)

    def _lost(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)

    async def hello(self, hello: Hello | None = HELLO) -> Any:
        """Say it and return the answer; None if the connection was closed instead."""
        self.talk = Talk(self.mux.open(), lambda answer: None, self.heard.append)
        if hello is not None:
            self.talk.say(hello)
        await asyncio.wait({self.talk.answer, self.lost}, timeout=20, return_when="FIRST_COMPLETED")
        return self.talk.answer.result() if self.talk.answer.done() else None

    async def hung_up(self) -> str:
        return await asyncio.wait_for(self.lost, 20)


@asynccontextmanager
async def calling(home: Home, tls: ssl.SSLContext = TLS, name: str = IDENTITY.name) -> AsyncIterator[Caller]:
    caller = Caller()
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: caller.mux, "127.0.0.1", home.port, ssl=tls, server_hostname=name)
    try:
        yield caller
    finally:
        caller.mux.abort("done")
        await caller.hung_up()


@pytest.fixture
def line(home: Home) -> Line:
    return home.expect(MARK, "token")


async def test_a_good_hello_is_welcome(home: Home, line: Line) -> None:
    async with calling(home) as caller:
        assert await caller.hello() == Welcome(PROTOCOL, home.switchboard.instance, [])
        await until(lambda: line.connected, "the line is connected")
        assert line.host == "node"
        caller.talk.say(Report(1, "ready"))
        done = line.command("signal", signum=2)
        await until(lambda: caller.heard, "the command")
        caller.talk.say(Ack(1))
        await done
        assert line.ready
        assert len(caller.streams) == 1, "home opened iopub"
    await until(lambda: not line.connected, "the loss is noticed")
    assert line.loss


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (HELLO._replace(token="forged"), "does not belong to this launch"),
        (HELLO._replace(token=""), "does not belong to this launch"),
        (HELLO._replace(token="\udcff"), "does not belong to this launch"),
        (HELLO._replace(home_id="other"), "no such launch"),
        (HELLO._replace(kernel_id="other"), "no such launch"),
        (HELLO._replace(launch=2), "no such launch"),
        (HELLO._replace(kernel_id="x" * 100), "cannot mark a job"),
        (HELLO._replace(kernel_id="a\nb"), "cannot mark a job"),
        (HELLO._replace(protocol=99), "home speaks protocol 1, 2, the agent 99"),
    ],
)
async def test_who_is_not_ours_is_told_so_for_good(home: Home, line: Line, hello: Hello, reason: str) -> None:
    async with calling(home) as caller:
        answer = await caller.hello(hello)
        assert isinstance(answer, Refused)
        assert answer.final
        assert reason in answer.reason
        await caller.hung_up()
    assert not line.connected
    assert line.admission.secret_hash == "", "the token can still be used"
    async with calling(home) as caller:
        assert isinstance(await caller.hello(), Welcome)


async def test_before_the_ledger_is_read_nobody_is_refused_for_good(home: Home, line: Line) -> None:
    home.switchboard.knows_all = False
    async with calling(home) as caller:
        answer = await caller.hello(HELLO._replace(kernel_id="other"))
        assert isinstance(answer, Refused)
        assert not answer.final
        assert "ledger" in answer.reason
    async with calling(home) as caller:
        assert isinstance(await caller.hello(), Welcome)


async def test_the_same_hello_again_is_welcome_and_another_secret_is_not(home: Home, line: Line) -> None:
    async with calling(home) as first:
        assert isinstance(await first.hello(), Welcome)
        async with calling(home) as thief:
            answer = await thief.hello(HELLO._replace(secret="another"))
            assert answer == Refused("the token has been used by another agent", True)
        assert line.connected
        assert not first.lost.done()
        async with calling(home) as second:
            assert isinstance(await second.hello(), Welcome)
            await first.hung_up()
            assert line.connected, "the newer connection is the line's"
            second.talk.say(Report(1, "ready"))
            await until(lambda: line.ready, "it is heard")
            figures = home.switchboard.figures
            assert (figures.welcomed, figures.returned, figures.refused, figures.lost) == (2, 1, 1, 1)


async def test_who_is_no_longer_wanted_is_told_to_end(home: Home, line: Line) -> None:
    home.switchboard.forget(line, "deleted")
    async with calling(home) as caller:
        answer = await caller.hello()
        assert isinstance(answer, Refused)
        assert answer.final


async def test_a_launch_forgotten_while_it_is_admitted_is_refused(short: Path) -> None:
    storing = asyncio.Event()
    stored = asyncio.Event()

    async def consume(mark: Mark, secret_hash: str) -> None:
        storing.set()
        await stored.wait()

    async with open_home(short, consume=consume) as home:
        line = home.expect(MARK, "token")
        async with calling(home) as caller:
            answer = asyncio.ensure_future(caller.hello())
            await storing.wait()
            home.switchboard.forget(line, "deleted")
            stored.set()
            refused = await answer
            assert isinstance(refused, Refused)
            assert "deleted" in refused.reason
        assert not line.connected


async def test_a_ledger_that_cannot_be_written_uses_no_token_up(
    short: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = True

    async def consume(mark: Mark, secret_hash: str) -> None:
        if broken:
            raise OSError("disk full")

    async with open_home(short, consume=consume) as home:
        line = home.expect(MARK, "token")
        async with calling(home) as caller:
            assert await caller.hello() == Refused("home cannot write its ledger now", False)
        assert line.admission.secret_hash == ""
        assert "could not store" in caplog.text
        broken = False
        async with calling(home) as caller:
            assert isinstance(await caller.hello(HELLO._replace(secret="of another agent")), Welcome)


async def test_nobody_is_answered_before_the_ledger_is_written(short: Path) -> None:
    """An agent that is cut off while its first hello is stored says it again."""
    calls: list[str] = []
    stored = asyncio.Event()

    async def consume(mark: Mark, secret_hash: str) -> None:
        calls.append(secret_hash)
        await stored.wait()

    async with open_home(short, consume=consume) as home:
        line = home.expect(MARK, "token")
        async with calling(home) as first:
            answer = asyncio.ensure_future(first.hello())
            await until(lambda: calls, "the ledger is asked")
            async with calling(home) as second:
                again = asyncio.ensure_future(second.hello())
                first.mux.abort("cut off")
                assert await answer is None
                await until(lambda: len(calls) == 2, "the ledger is asked again")
                assert (again.done(), line.connected) == (False, False)
                stored.set()
                assert isinstance(await again, Welcome)
        assert calls[0] == calls[1] == line.admission.secret_hash


async def test_a_home_of_another_authority_or_name_is_not_spoken_to(short: Path) -> None:
    stranger = Identity.create()
    async with open_home(short, hello_timeout=1.0) as home:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with calling(home, tls_of(stranger.authority)):
                pass
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            async with calling(home, name=stranger.name):
                pass
        with pytest.raises(ssl.SSLCertVerificationError):
            async with calling(home, name="127.0.0.1"):
                pass
        await until(lambda: not home.switchboard._callers, "nobody is left on the line")


async def bytes_to(home: Home, data: bytes, *, tls: bool, end: bool = True) -> bytes:
    """Send bytes as they are, and return what comes back to the end of the connection."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1",
        home.port,
        ssl=TLS if tls else None,
        server_hostname=IDENTITY.name if tls else None,
    )
    answer = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        writer.write(data)
        if end and not tls:
            writer.write_eof()
        elif end:
            await writer.drain()
            writer.close()
        answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return answer


def data_frame(payload: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BBHII", 0, 0, 0, 1, len(payload) if length is None else length) + payload


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 11 + b"\xff" + b"\xff" * 100,
        OPEN + data_frame(b"", 1 << 30),
        OPEN + data_frame(struct.pack(">I", 1 << 30)),
        OPEN + data_frame(encode(Ack(1))),
        OPEN + data_frame(struct.pack(">I", 4) + b"\xff\xff{}"),
        OPEN + data_frame(encode(HELLO) + encode(Ack(1))),
        OPEN + OPEN,
        OPEN + b"\0\1\0\1\0\0\0\3" + bytes(4),
        PING * 5000,
        OPEN + data_frame(struct.pack(">I", 16000)) + data_frame(b"x" * 15000) * 10,
        OPEN + b"\0\1\0\4\0\0\0\1" + bytes(4),
        OPEN + b"\0\1\0\x08\0\0\0\1" + bytes(4),
    ],
)
async def test_what_is_no_hello_ends_the_connection_and_no_other(
    home: Home, line: Line, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with calling(home) as good:
        await good.hello()
        other = home.expect(Mark(IDENTITY.home_id, "other", 1), "other token")
        await bytes_to(home, data, tls=True, end=False)
        assert len(home.switchboard._callers) == 1
        good.talk.say(Report(1, "ready"))
        await until(lambda: line.ready, "the good line is undisturbed")
        assert not other.connected
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_half_a_hello_and_half_a_frame(home: Home, line: Line) -> None:
    wire = OPEN + data_frame(encode(HELLO))
    for cut in (1, 11, 12, 20, len(wire) - 1):
        await bytes_to(home, wire[:cut], tls=True)
    await until(lambda: not home.switchboard._callers, "nobody is left on the line")
    assert line.admission.secret_hash == ""


@pytest.mark.parametrize("tls", [True, False])
async def test_who_says_nothing_is_hung_up_on(short: Path, tls: bool) -> None:
    async with open_home(short, hello_timeout=0.1) as home:
        await bytes_to(home, b"", tls=tls, end=False)
        await until(lambda: not home.switchboard._callers, "nobody is left on the line")


async def test_a_second_stream_after_the_welcome_ends_the_connection(home: Home, line: Line) -> None:
    async with calling(home) as caller:
        await caller.hello()
        caller.mux.open()
        await caller.hung_up()
        await until(lambda: not line.connected, "the loss is noticed")


@pytest.mark.parametrize("word", [Welcome(1, "x", []), HELLO, Report(1, "ready", welcome="no base64")])
async def test_a_word_that_only_home_may_say_ends_the_connection(home: Home, line: Line, word: Any) -> None:
    async with calling(home) as caller:
        await caller.hello()
        caller.talk.say(word)
        await caller.hung_up()


@pytest.mark.parametrize("output", [encode(Ack(1)), b"\0\0\0\2[]", b"\xff" * 64])
async def test_output_that_is_none_ends_the_connection(
    home: Home, line: Line, output: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with calling(home) as caller:
        await caller.hello()
        await until(lambda: caller.streams, "home opens iopub")
        caller.streams[0].write(output)
        await caller.hung_up()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=300)), min_size=1, max_size=6))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_before_and_after_tls_disturbs_nobody(
    tmp_path: Path, script: list[tuple[bool, bytes]]
) -> None:
    asyncio.run(garbage(tmp_path, script))


async def garbage(directory: Path, script: list[tuple[bool, bytes]]) -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
    async with open_home(directory) as home:
        line = home.expect(MARK, "token")
        async with calling(home) as good:
            await good.hello()
            for tls, data in script:
                await bytes_to(home, data if not tls else OPEN + data_frame(data), tls=tls)
            good.talk.say(Report(1, "ready"))
            await until(lambda: line.ready, "the good line is undisturbed")
            assert not good.lost.done()
    assert problems == []


async def test_strangers_who_say_nothing_keep_nobody_out_for_long(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many are accepted; who waits behind them comes when they are hung up on."""
    monkeypatch.setattr("elsewhere.switchboard.STRANGERS", 2)
    async with open_home(short, hello_timeout=0.5) as home:
        home.expect(MARK, "token")
        silent = [await asyncio.open_connection("127.0.0.1", home.port) for _ in range(5)]
        async with calling(home) as caller:
            assert isinstance(await caller.hello(), Welcome)
            await until(lambda: len(home.switchboard._callers) == 1, "only the agent is on the line")
        for _, writer in silent:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
