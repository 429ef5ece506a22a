"""The agent without its home: it computes on, knocks, finds home again, or ends the job."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent_kit import PATIENCE, Home, Job, alive, client_of, job_of, open_home, order_of, until
from elsewhere.agent.mux import Mux
from elsewhere.parcel import SpoolLimits


async def test_a_restarted_home_finds_agent_and_unacknowledged_output_again(short: Path) -> None:
    """The gateway's case: the same identity, port, tokens and hashes of secrets; all else is new."""
    async with open_home(short) as before:
        port = before.port
        job_context = job_of(before, short)
        job = await job_context.__aenter__()
        try:
            await job.ready()
            async with client_of(job.line, short) as client:
                pid = (await client.facts())["pid"]
                await client.ask("publish", "0", "10")
                assert await client.numbers(10) == list(range(10))
                await until(lambda: job.line.publisher.delivered == 10, "all is delivered")
                client.iopub.close()
                await job.line.command("signal", signum=0)
            secret_hash = job.line.admission.secret_hash
            assert secret_hash
            again = before.identity
            await before.switchboard.aclose()
            await until(lambda: not job.line.connected, "home is gone")
            async with open_home(short, port) as after:
                assert after.identity is again
                line = job.line = after.expect(job.mark, job.token, secret_hash)
                await job.ready()
                async with client_of(line, short) as client:
                    assert (await client.facts())["pid"] == pid
                    await client.ask("publish", "10", "20")
                    got = await client.numbers(10)
                    assert got == list(range(10, 20))
                    await line.command("signal", signum=signal.SIGINT)
                    assert await client.numbers(1) == [1]
                    line.start(order_of(2))
                    await job.ready(2)
                    assert (await client.facts())["pid"] != pid
                    line.command("end", grace=5)
                    assert "home ended it" in await job.over()
        finally:
            await job_context.__aexit__(None, None, None)


async def test_output_that_came_while_there_was_no_home_comes_afterwards(short: Path) -> None:
    async with open_home(short) as before, job_of(before, short) as job:
        await job.ready()
        async with client_of(job.line, short) as client:
            await client.facts()
            # Too much to be on its way: most of it is in the spool when home goes.
            await client.tell("publish", "0", "30000")
            await until(lambda: job.line.publisher.last > 100, "it has begun")
            await before.switchboard.aclose()
            await until(lambda: not job.line.connected, "home is gone")
        secret_hash = job.line.admission.secret_hash
        delivered = job.line.publisher.delivered
        async with open_home(short, before.port) as after:
            line = job.line = after.expect(job.mark, job.token, secret_hash)
            await job.ready()
            async with client_of(line, short) as client:
                first = (await client.numbers(1))[0]
                assert first <= delivered, "nothing between the last receipt and now is missing"
                assert await client.numbers(30_000 - first - 1) == list(range(first + 1, 30_000))


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
async def test_torn_connections_lose_and_double_nothing(home: Home, short: Path, transport: str) -> None:
    """The same home and clients: to them nothing has happened."""
    spool = SpoolLimits(memory=10_000, disk=1 << 30)
    order = order_of(transport=transport)
    async with job_of(home, short, order=order, spool=spool) as job, client_of(job.line, short) as client:
        await job.ready()
        facts = await client.facts()
        await client.tell("publish", "0", "20000")
        got: list[int] = []
        for tear in range(5):
            got += await client.numbers(2000)
            mux = job.line._mux
            assert mux is not None
            mux.abort(f"tear {tear}")
            await back(job, mux)
        got += await client.numbers(10_000)
        assert got == list(range(20_000))
        assert (await client._receive(client.shell)) == [b"done"]
        assert (await client.facts())["pid"] == facts["pid"]


async def test_a_command_that_comes_with_the_welcome_is_done_and_acknowledged(short: Path) -> None:
    """Also one of a home that was restarted, which counts its commands from one again."""
    async with open_home(short) as before, job_of(before, short) as job:
        await job.ready()
        for _ in range(3):
            await job.line.command("signal", signum=0)
        for number in range(4):
            mux = job.line._mux
            assert mux is not None
            mux.abort("again")
            await until(lambda: not job.line.connected, "the loss is noticed")
            done = job.line.command("signal", signum=signal.SIGINT if number % 2 else 0)
            await asyncio.wait_for(done, PATIENCE)
        secret_hash = job.line.admission.secret_hash
        await before.switchboard.aclose()
        async with open_home(short, before.port) as after:
            job.line = after.expect(job.mark, job.token, secret_hash)
            await asyncio.wait_for(job.line.command("start", order=order_of(2)), PATIENCE)
            await job.ready(2)


async def back(job: Job, mux: Mux) -> None:
    """Wait until the agent has a newer connection than that."""
    await until(lambda: job.line._mux not in (None, mux), "the agent is back")


async def test_without_home_the_job_ends_after_the_orphan_grace(short: Path) -> None:
    async with open_home(short) as home, job_of(home, short, orphan=1.0) as job:
        await job.ready()
        assert job.line.report is not None
        pid = job.line.report.pid
        assert pid is not None
        await home.switchboard.aclose()
        output = await job.over()
        assert "no answer from home for 1 s" in output
        assert not alive(pid)
        assert job.left() == []


async def test_a_home_that_was_never_reached_ends_the_job_and_the_reason_names_the_address(
    home: Home, short: Path
) -> None:
    nobody = replace(home.address, addresses=("127.0.0.1:1", "[::1]:1", "a..b:1"))
    async with job_of(home, short, address=nobody, orphan=1.0) as job:
        output = await job.over()
        assert "no answer from home for 1 s" in output
        assert ":1: " in output


async def test_a_home_that_refuses_ends_the_job_at_once(home: Home, short: Path) -> None:
    async with job_of(home, short) as job:
        await job.ready()
        home.switchboard.lines.clear()
        mux = job.line._mux
        assert mux is not None
        mux.abort("and is asked again")
        assert "home refused this job: no such launch is wanted here" in await job.over()
        assert job.left() == []


async def test_the_good_one_of_several_addresses_is_found_and_dialled_first_from_then_on(
    home: Home, short: Path
) -> None:
    async with black_hole() as hole:
        addresses = ("127.0.0.1:1", *home.address.addresses, hole)
        async with job_of(home, short, address=replace(home.address, addresses=addresses)) as job:
            await job.ready()
            for _ in range(3):
                mux = job.line._mux
                assert mux is not None
                await asyncio.wait_for(
                    job.line.command("signal", signum=0), PATIENCE
                )  # the agent has taken its welcome, too
                began = time.monotonic()
                mux.abort("again")
                await back(job, mux)
                assert time.monotonic() - began < 10, "it did not wait for the one that is silent"


class black_hole:  # noqa: N801
    """An address where somebody listens and never answers."""

    async def __aenter__(self) -> str:
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._swallow, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _swallow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)

    async def __aexit__(self, *args: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0)
