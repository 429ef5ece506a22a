"""A home's line and an agent's mailboxes over a link in memory, and a kernel in the hands of the test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from mux_kit import Pair, settled

from elsewhere.agent import mailbox as agents
from elsewhere.agent.mailbox import Mailboxes
from elsewhere.agent.outbox import Outbox
from elsewhere.agent.pipes import Pipes
from elsewhere.agent.spool import Spool
from elsewhere.agent.words import PROTOCOL, Report
from elsewhere.agent.zmtp import encode_message, frames
from elsewhere.backend import Mark
from elsewhere.line import Admission, Line
from elsewhere.mailbox import Letter, Mailbox


class KernelSockets:
    """What the agent's Dealers are to a mailbox: notes what is asked, and answers as the test says."""

    made: list[KernelSockets] = []  # noqa: RUF012 - emptied by each Office

    def __init__(self, connection: Any, heard: Callable[[str, bytes, list[int]], None], room: Any) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.closed = False
        self.crowded = False
        self._heard = heard
        self._room = room
        self.made.append(self)

    def send(self, channel: str, wire: bytes) -> None:
        self.asked.append((channel, body(wire)))

    def answer(self, channel: str, text: bytes) -> None:
        wire = message(text)
        self._heard(channel, wire, [len(wire)])

    def take_again(self) -> None:
        self.crowded = False
        self._room()

    def close(self) -> None:
        self.closed = True


def message(text: bytes) -> bytes:
    return encode_message([b"topic", text])


def body(wire: bytes) -> bytes:
    return bytes(frames(wire, 0, len(wire))[1])


class FrontEnd:
    """One front end: what it was given, by channel; ``taking`` says whether it confirms at once."""

    def __init__(self, office: Office, name: str, received: int = 0) -> None:
        self.office = office
        self.name = name
        self.letters: list[Letter] = []
        self.taking = True
        self.box = Mailbox(name, self._came, 1, received)
        office.line.add_mailbox(self.box)

    def _came(self, letter: Letter) -> None:
        self.letters.append(letter)
        if self.taking:
            self.box.took(letter.launch, letter.last)

    def take_all(self) -> None:
        self.taking = True
        for letter in self.letters:
            self.box.took(letter.launch, letter.last)

    def asks(self, text: bytes, channel: str = "shell") -> None:
        self.box.post(channel, message(text))

    @property
    def last(self) -> int:
        return self.letters[-1].last if self.letters else 0

    def heard(self, channel: str = "iopub") -> list[bytes]:
        found = []
        for letter in self.letters:
            start = 0
            for end in letter.ends:
                if letter.channel == channel:
                    found.append(body(letter.wire[start:end]))
                start = end
        return found

    def goes(self, *, for_good: bool = False) -> None:
        self.office.line.remove_mailbox(self.box)
        self.box.close(for_good=for_good)


class Office:
    """``home_dies`` and ``connect`` are what an upgrade is; ``kernel_of`` is what a mailbox asks."""

    def __init__(self, patch: pytest.MonkeyPatch, *, memory: int = 1 << 20, disk: int = 0) -> None:
        patch.setattr(agents, "Dealers", KernelSockets)
        patch.setattr("elsewhere.agent.outbox.PAUSE", 0)
        patch.setattr("elsewhere.mailbox.RECEIPT_BYTES", 0)
        KernelSockets.made = []
        self.directory = tempfile.TemporaryDirectory()
        self.outbox = Outbox(Spool(self.directory.name, memory=memory, disk=disk), b"", lambda state: None)
        self.alive = True
        self.mailboxes = Mailboxes(self.outbox, lambda: {"transport": "tcp"} if self.alive else None)
        self.pipes = Pipes(lambda: None)
        self.pair: Pair | None = None
        self.instances = 0
        self.home_starts()

    def home_starts(self) -> None:
        self.instances += 1
        self.line = Line(Mark("home", "k", 1), Admission("hash"), publishes=False)
        self.line.report = Report(1, "ready")

    async def connect(self, protocol: int = PROTOCOL) -> None:
        pair, line, instance = Pair(), self.line, str(self.instances)
        self.pair = pair
        pair.agent._accept = lambda stream: self.pipes.accept(
            stream,
            {"mailbox": lambda stream, opening, rest: self.mailboxes.accept(stream, opening, rest, instance)},
        )
        pair.home._lost = lambda reason: line.detach(pair.home, reason)
        pair.agent.open()
        await pair.carry()
        line.attach(pair.home, pair.to_home[0], protocol)
        await self.carry()

    async def carry(self, limit: int = 1 << 40) -> None:
        if self.pair is not None:
            await self.pair.carry(limit)

    async def tear(self) -> None:
        if self.pair is not None:
            pair, self.pair = self.pair, None
            await pair.tear()

    async def home_dies(self) -> None:
        """With all that it knew of; the next one is there at once."""
        await self.tear()
        self.home_starts()

    def publish(self, *texts: bytes) -> None:
        wires = [message(text) for text in texts]
        ends, total = [], 0
        for wire in wires:
            total += len(wire)
            ends.append(total)
        self.outbox.add(b"".join(wires), ends)

    async def close(self) -> None:
        self.mailboxes.close()
        await self.tear()
        await settled()
        self.outbox.spool.close()
        self.directory.cleanup()
