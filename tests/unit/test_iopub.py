"""The kernel's one subscriber: all messages go to the outbox, but for the kernel's welcome."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from mux_kit import Wire
from test_outbox import KEY, Home, text, wire_of

from elsewhere.agent.iopub import EARLY, IopubReader
from elsewhere.agent.outbox import Outbox
from elsewhere.agent.spool import Spool
from elsewhere.agent.zmtp import PublisherPeer

WELCOME = wire_of("iopub_welcome", {"subscription": ""})


class Kernel:
    """The kernel's end of the connection."""

    def __init__(self, outbox: Outbox) -> None:
        self.peer = PublisherPeer()
        self.reader = IopubReader(outbox)
        self.wire = Wire(self.reader).begin()
        for _ in range(3):  # greetings, READY, the subscription
            self.reader.data_received(self.peer.outgoing())
            self.peer.receive(self.wire.take())
        assert self.peer.topics == {b""}

    def publishes(self, *wires: bytes) -> None:
        self.reader.data_received(b"".join(wires))


@pytest.fixture
def outbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outbox:
    monkeypatch.setattr("elsewhere.agent.outbox.PAUSE", 0)
    return Outbox(Spool(str(tmp_path), memory=1_000_000, disk=0), KEY, lambda state: None)


async def texts(outbox: Outbox) -> list[str]:
    home = Home(outbox)
    await home.attach()
    return [message["content"].get("text", message["msg_type"]) for message in home.messages]


@pytest.mark.parametrize("before", [0, 1, 2])
async def test_a_welcome_is_kept_and_never_passed_on(outbox: Outbox, before: int) -> None:
    kernel = Kernel(outbox)
    output = [text(f"{number}") for number in range(4)]
    kernel.publishes(*output[:before], WELCOME, *output[before:])
    assert kernel.reader.greeted.done()
    assert base64.b64decode(kernel.reader.welcome) == WELCOME
    assert await texts(outbox) == ["0", "1", "2", "3"]


async def test_a_welcome_may_come_after_what_was_printed_before_the_kernel_saw_us(outbox: Outbox) -> None:
    kernel = Kernel(outbox)
    kernel.publishes(text("early"), text("bird"))
    assert not kernel.reader.greeted.done()
    kernel.publishes(WELCOME)
    kernel.publishes(text("late"))
    assert base64.b64decode(kernel.reader.welcome) == WELCOME
    assert await texts(outbox) == ["early", "bird", "late"]


async def test_text_that_speaks_of_a_welcome_is_none(outbox: Outbox) -> None:
    kernel = Kernel(outbox)
    kernel.publishes(text('"iopub_welcome"'), wire_of("display_data", {"iopub_welcome": 1}))
    assert not kernel.reader.greeted.done()
    assert await texts(outbox) == ['"iopub_welcome"', "display_data"]


async def test_what_comes_long_after_the_start_is_passed_on_as_it_is(outbox: Outbox) -> None:
    kernel = Kernel(outbox)
    kernel.publishes(*[text(f"{number}") for number in range(EARLY)])
    kernel.publishes(WELCOME)
    assert not kernel.reader.greeted.done()
    assert (await texts(outbox))[EARLY:] == ["iopub_welcome"]
