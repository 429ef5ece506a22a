"""Quick output and a slow reader, a cut link, a torn link: every line once, in order, and the reply."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from client_kit import kernel_of, run, started
from link_kit import Proxy, free_port, proxy
from site_kit import PATIENCE, Site, until

PRINTS = 50_000
READER_SLEEPS = 10.0
LINK_IS_CUT = 20.0
TEARS = 5
PRINTING = (
    "import sys\nfor i in range({count}):\n    sys.stdout.write(f'{{i}}\\n'); sys.stdout.flush()\n'done'"
)
PACED = (
    "import sys, time\nfor i in range({count}):\n    print(i, flush=True)\n    time.sleep({pause})\n'done'"
)


@dataclass
class Output:
    """What was published since a request, read without decoding more than is looked at."""

    lines: list[str] = field(default_factory=list)
    messages: int = 0
    results: int = 0
    idle: bool = False


class Reader:
    """Takes an execution's messages from a client's iopub, as many as wanted at a time."""

    def __init__(self, client: BlockingKernelClient, code: str) -> None:
        self.output = Output()
        self._client = client
        self._text: list[str] = []
        self.request = client.execute(code, allow_stdin=False)

    def read(self, lines: int | None = None) -> Output:
        """Read until that many lines have come, or else to the end."""
        socket = self._client.iopub_channel.socket
        count = 0
        while not self.output.idle and (lines is None or count < lines):
            if not socket.poll(PATIENCE * 1000):
                pytest.fail(f"nothing more after {self.output.messages} messages of output")
            count += self._take(socket)
        if self.output.idle:
            self.output.lines = "".join(self._text).splitlines()
        return self.output

    def reply(self) -> str:
        """Wait for the reply and return its status."""
        reply = self._client.get_shell_msg(timeout=PATIENCE)
        assert reply["parent_header"]["msg_id"] == self.request
        return str(reply["content"]["status"])

    def _take(self, socket: zmq.Socket[bytes]) -> int:
        frames = socket.recv_multipart()
        header, parent, _, content = frames[frames.index(b"<IDS|MSG>") + 2 :][:4]
        if self.request.encode() not in parent:
            return 0
        kind = json.loads(header)["msg_type"]
        if kind == "stream":
            text = json.loads(content)["text"]
            self._text.append(text)
            self.output.messages += 1
            return int(text.count("\n"))
        if kind == "execute_result":
            self.output.results += 1
        elif kind == "status":
            self.output.idle = json.loads(content)["execution_state"] == "idle"
        return 0


def expect_all(reader: Reader, count: int) -> None:
    """Every line once and in order, one result, and the reply."""
    output = reader.read()
    assert output.lines == [str(number) for number in range(count)]
    assert output.results == 1
    assert reader.reply() == "ok"


def test_a_reader_that_sleeps_misses_nothing(site: Site) -> None:
    with started(site.spec()) as (_, client):
        reader = Reader(client, PRINTING.format(count=PRINTS))
        time.sleep(READER_SLEEPS)
        expect_all(reader, PRINTS)
        assert reader.output.messages > PRINTS / 100, "too few messages to show anything"


def test_a_reader_that_sleeps_misses_nothing_where_the_spool_goes_to_disk(site: Site) -> None:
    with started(site.spec(spool_memory=10_000)) as (manager, client):
        reader = Reader(client, PRINTING.format(count=8_000))
        until(
            lambda: spooled(manager) > 1_000_000 or client_is_done(client), "the spool fills, or all is out"
        )
        expect_all(reader, 8_000)


@pytest.fixture
def link(site: Site) -> Iterator[Proxy]:
    """The way home of all agents of this site."""
    port = free_port()
    with proxy(port) as one:
        site.toml(f'[switchboard]\nport = {port}\nadvertise = ["127.0.0.1:{one.port}"]\n')
        yield one


def test_a_link_that_is_cut_and_healed(site: Site, link: Proxy) -> None:
    with started(site.spec()) as (_, client):
        reader = Reader(client, PACED.format(count=2_000, pause=0.005))
        reader.read(lines=200)
        link.cut()
        time.sleep(LINK_IS_CUT)
        link.heal()
        expect_all(reader, 2_000)
        assert run(client, "6 * 7").value == "42"


def test_a_link_that_is_torn_and_dialled_again(site: Site, link: Proxy) -> None:
    count = (TEARS + 1) * 2_000
    with started(site.spec()) as (manager, client):
        (agent,) = site.agents()
        reader = Reader(client, PRINTING.format(count=count))
        for _ in range(TEARS):
            reader.read(lines=500)
            dials = link.dials
            link.tear()
            until(lambda dials=dials: link.dials > dials, "the agent dials again")  # type: ignore[misc]
        expect_all(reader, count)
        assert run(client, "6 * 7").value == "42"
        assert run(client, "input()", answer="yes").value == "'yes'"
        assert site.agents() == [agent]
        assert kernel_of(manager).start_number == 1


def test_a_signal_during_an_outage_is_delivered_after_it(site: Site, link: Proxy) -> None:
    with started(site.spec()) as (manager, client):
        reader = Reader(client, "import time\nprint('0', flush=True)\nwhile True: time.sleep(0.1)")
        reader.read(lines=1)
        link.cut()
        link.tear()
        manager.interrupt_kernel()
        assert manager.is_alive(), "silence proves nothing"
        link.heal()
        reader.read()
        assert reader.reply() == "error"


def spooled(manager: KernelManager) -> int:
    """Bytes that the agent last said it held."""
    report = kernel_of(manager)._job.line.report
    return report.spooled if report is not None else 0


def client_is_done(client: BlockingKernelClient) -> bool:
    """Whether the reply is there already."""
    return bool(client.shell_channel.socket.poll(0))
