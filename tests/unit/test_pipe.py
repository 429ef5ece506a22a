"""A pipe: every byte once, in order, in both directions, wherever the link is torn."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mux_kit import Pair, Wire, settled

from elsewhere.agent.mux import Stream
from elsewhere.agent.pipe import HELD, Pipe
from elsewhere.agent.pipes import Pipes
from elsewhere.agent.words import PROTOCOL, Opening, Report, encode
from elsewhere.backend import Mark
from elsewhere.line import Admission, Line


class Office:
    """A home's line and an agent's pipes, of a kernel whose sockets are in the hands of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
        self.line = Line(Mark("home", "k", 1), Admission("hash"))
        self.line.report = Report(1, "ready")
        self.pipes = Pipes(lambda: {"transport": "tcp"})
        self.pair: Pair | None = None
        self.iopub_openings = 0

    async def connect(self) -> Pair:
        """The agent dials, and is admitted."""
        self.pipes.keep_only(self.line.pipe_names)
        pair = self.pair = Pair()
        pair.agent._accept = lambda stream: self.pipes.accept(stream, {"iopub": self._iopub})
        pair.home._lost = lambda reason: self.line.detach(pair.home, reason)
        talk = pair.agent.open()
        await pair.carry()
        assert talk.queued == 0
        self.line.attach(pair.home, pair.to_home[0], PROTOCOL)
        return pair

    def _iopub(self, stream: Stream, opening: Opening, rest: bytes) -> None:
        self.iopub_openings += 1

    def client(self, channel: str = "shell") -> Local:
        """A client connects at home."""
        protocol = self.line.connect(channel)
        assert isinstance(protocol, Pipe)
        return Local(protocol)

    async def kernel(self) -> Local:
        """The kernel's end of the pipe that was opened last."""
        pair = self.pair
        assert pair is not None
        await pair.carry()
        return Local(list(self.pipes._pipes.values())[-1])

    async def carry(self) -> None:
        assert self.pair is not None
        await self.pair.carry()

    async def tear(self) -> None:
        assert self.pair is not None
        await self.pair.tear()


class Local(Wire):
    """A local socket in the hands of the test."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__(pipe)
        self.pipe = pipe
        self.begin()

    def says(self, data: bytes) -> None:
        self.pipe.data_received(data)

    @property
    def heard(self) -> bytes:
        return bytes(self.sent)


@pytest.fixture(autouse=True)
def _no_dialling(monkeypatch: pytest.MonkeyPatch) -> None:
    no_dialling(monkeypatch)


def no_dialling(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dial(*args: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("elsewhere.agent.pipes.dial", dial)


async def test_bytes_pass_both_ways() -> None:
    office = Office()
    await office.connect()
    client = office.client()
    client.says(b"early")
    kernel = await office.kernel()
    client.says(b" question")
    kernel.says(b"answer")
    await office.carry()
    assert (kernel.heard, client.heard) == (b"early question", b"answer")
    office.pipes.abort_all()


async def test_a_slow_reader_holds_back_the_other_side() -> None:
    office = Office()
    await office.connect()
    client = office.client()
    kernel = await office.kernel()
    client.pipe.pause_writing()
    said = 0
    while kernel.is_reading():
        kernel.says(b"x" * 65536)
        said += 65536
        await office.carry()
        assert said < 10 * HELD, "nobody holds it back"
    assert len(client.heard) <= 262144
    client.pipe.resume_writing()
    await office.carry()
    assert len(client.heard) == said
    assert kernel.is_reading()
    office.pipes.abort_all()


async def test_the_end_of_the_client_is_the_end_of_the_kernels_connection_after_the_last_byte() -> None:
    office = Office()
    await office.connect()
    client = office.client()
    kernel = await office.kernel()
    client.says(b"z" * 1000)
    client.close()
    await settled()
    await office.carry()
    assert (len(kernel.heard), kernel.closed) == (1000, "closed")
    assert (office.line.pipe_names, office.pipes._pipes, office.pipes._dials) == ([], {}, {})


async def test_the_end_of_the_kernels_side_is_the_end_of_the_clients() -> None:
    office = Office()
    await office.connect()
    client = office.client()
    kernel = await office.kernel()
    kernel.says(b"last words")
    kernel.close()
    await settled()
    await office.carry()
    assert (client.heard, client.closed) == (b"last words", "closed")
    assert office.line.pipe_names == []


async def test_a_client_that_leaves_in_the_middle_of_an_answer_leaves_no_stream_behind() -> None:
    office = Office()
    pair = await office.connect()
    client = office.client()
    kernel = await office.kernel()
    client.pipe.pause_writing()
    for _ in range(12):
        kernel.says(b"x" * 65536)
    await office.carry()
    client.abort()
    await settled()
    await office.carry()
    kernel.abort()
    await settled()
    await office.carry()
    still = {stream.id for stream in (pair.home.session._streams | pair.agent.session._streams).values()}
    assert still == {1, 2}, "the talk and iopub streams"


async def test_a_client_that_leaves_before_there_is_a_link_is_forgotten() -> None:
    office = Office()
    client = office.client()
    client.says(b"greeting")
    client.close()
    await settled()
    assert office.line.pipe_names == []


async def test_a_pipe_waits_for_the_link_and_for_the_kernel() -> None:
    office = Office()
    office.line.report = Report(1, "starting")
    client = office.client()
    client.says(b"before all")
    pair = await office.connect()
    await pair.carry()
    assert office.pipes._pipes == {}
    office.line.heard(Report(1, "ready"))
    assert (await office.kernel()).heard == b"before all"
    office.pipes.abort_all()


async def test_a_newer_connection_takes_the_pipes_over_before_the_older_is_known_to_be_lost() -> None:
    office = Office()
    old = await office.connect()
    client = office.client()
    kernel = await office.kernel()
    kernel.says(b"one ")
    await old.carry()
    kernel.says(b"two ")
    old.agent_wire.abort()  # a router forgot the connection: only the agent knows
    await settled()
    await office.connect()
    kernel.says(b"three")
    await office.carry()
    assert client.heard == b"one two three"
    assert old.home_wire.closed
    office.pipes.abort_all()


async def test_what_one_side_no_longer_has_is_refused() -> None:
    office = Office()
    await office.connect()
    client = office.client()
    kernel = await office.kernel()
    kernel.says(b"answer")
    await office.carry()
    await office.tear()
    office.pipes.abort_all()  # the kernel is gone, and with it what was kept
    await office.connect()
    await office.carry()
    assert client.closed
    assert office.line.pipe_names == []


async def test_a_far_side_that_claims_more_than_was_sent_is_refused() -> None:
    office = Office()
    await office.connect()
    client = office.client()
    kernel = await office.kernel()
    await office.tear()
    pair = Pair()
    pair.agent._accept = lambda stream: office.pipes.accept(stream, {"iopub": office._iopub})
    stream = pair.home.open()
    stream.write(encode(Opening("shell", kernel.pipe.name, 1)))
    await pair.carry()
    assert kernel.closed == "aborted"
    client.abort()
    await settled()


async def test_credit_for_the_opening_confirms_nothing_of_the_pipe() -> None:
    """What was confirmed is forgotten: one byte too many, and the pipe cannot go on after a loss."""
    office = Office()
    pair = await office.connect()
    client = office.client()
    kernel = await office.kernel()
    client.says(b"x" * 131072)
    await settled()
    pair.agent.data_received(pair.home_wire.take())
    await settled()
    client.says(b"y" * 65536)  # on its way, and never to arrive
    pair.home.data_received(pair.agent_wire.take())
    assert client.pipe._confirmed > 0
    assert client.pipe._confirmed <= len(kernel.heard)
    await office.tear()
    await office.connect()
    await office.carry()
    assert kernel.heard == b"x" * 131072 + b"y" * 65536
    office.pipes.abort_all()


async def test_words_and_bytes_in_one_piece_are_counted_once() -> None:
    pair = Pair()
    pipes = Pipes(lambda: {"transport": "tcp"})
    pair.agent._accept = lambda stream: pipes.accept(stream, {})
    stream = pair.home.open()
    stream.write(encode(Opening("shell", "p", 0)) + b"x" * 200_000)
    await pair.carry()
    kernel = Local(pipes._pipes["p"])
    assert kernel.heard == b"x" * 200_000
    pipes.abort_all()


async def test_once_the_line_is_over_a_connection_is_closed_at_once() -> None:
    office = Office()
    office.line.end("over")
    for channel in ("shell", "iopub"):
        assert Local(office.line.connect(channel)).closed == "aborted"  # type: ignore[arg-type]
    await settled()
    assert office.line.pipe_names == []


MOODS = ["client slow", "kernel slow", "client quick", "kernel quick"]
Step = tuple[str, int]
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["client", "kernel"]), st.integers(1, 200_000)),
        st.tuples(st.just("carry"), st.integers(1, 400_000)),
        st.tuples(st.just("tear"), st.integers(0, 2)),
        st.tuples(
            st.sampled_from(["client slow", "kernel slow", "client quick", "kernel quick"]), st.just(0)
        ),
    ),
    max_size=40,
)


@given(steps)
@settings(max_examples=80, deadline=None)
def test_torn_anywhere_every_byte_arrives_once_and_in_order(script: list[Step]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        no_dialling(patch)
        asyncio.run(torn(script))


async def torn(script: list[Step]) -> None:
    office = Office()
    pair = await office.connect()
    client = office.client()
    kernel = await office.kernel()
    said = {"client": b"", "kernel": b""}
    ends = {"client": client, "kernel": kernel}
    counter = 0
    for what, size in script:
        who, _, mood = what.partition(" ")
        if what == "carry":
            await pair.carry(size)
        elif what == "tear":
            if size:  # else the older connection is superseded, and nobody has noticed its loss at home
                await pair.tear()
            else:
                pair.agent_wire.abort()
                await settled()
            pair = await office.connect()
            if size == 2:
                await pair.carry()
        elif mood:
            pipe = ends[who].pipe
            _ = pipe.pause_writing() if mood == "slow" else pipe.resume_writing()  # type: ignore[func-returns-value]
        elif ends[who].is_reading():
            data = b"".join(i.to_bytes(4, "big") for i in range(counter, counter + size // 4 + 1))
            counter += size // 4 + 1
            said[who] += data
            ends[who].says(data)
    client.pipe.resume_writing()
    kernel.pipe.resume_writing()
    await pair.carry()
    assert (client.closed, kernel.closed) == ("", "")
    assert client.heard == said["kernel"]
    assert kernel.heard == said["client"]
    assert client.is_reading()
    assert kernel.is_reading()
    client.close()
    await settled()
    await pair.carry()
    assert kernel.closed
    assert office.line.pipe_names == []
    office.pipes.abort_all()
    await settled()
