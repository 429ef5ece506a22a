"""Local connections at the end of a home."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from elsewhere.agent.mux import CLOSED
from elsewhere.agent.pipe import Pipe
from elsewhere.backend import Mark
from elsewhere.doors import Doors
from elsewhere.home import Home
from elsewhere.identity import Identity
from elsewhere.line import Admission
from elsewhere.parcel import Signing
from elsewhere.rundir import RunDirectory
from elsewhere.settings import Switchboard
from elsewhere.switchboard import digest

MORE_THAN_A_SOCKET_HOLDS = 8 * 2**20


def is_open(pipe: Pipe) -> bool:
    return pipe._local is not None


async def test_a_client_that_does_not_read_the_last_of_it_keeps_no_home_open(short: Path) -> None:
    home = Home(Switchboard(), RunDirectory(short), Identity.create())
    await home.open()
    doors = Doors(home.rundir.path, home.pipes)
    doors.lead_to(home.expect(Mark(home.home_id, "k", 1), Admission(digest("token"))))
    await doors.open()
    there = doors.connection(Signing("k" * 32))
    _, writer = await asyncio.open_unix_connection(f"{there.ip}-{there.ports['shell_port']}", limit=1024)
    while not any(is_open(pipe) for pipe in home.pipes):
        await asyncio.sleep(0)
    (pipe,) = home.pipes
    pipe.stream_data(b"x" * MORE_THAN_A_SOCKET_HOLDS)
    pipe.stream_ended(CLOSED)
    for _ in range(10):
        await asyncio.sleep(0)
    assert is_open(pipe), "it waits for the client"
    doors.close()
    await home.aclose()
    assert not is_open(pipe)
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_nobody_listens_until_somebody_is_to_be_let_in(short: Path) -> None:
    home = Home(Switchboard(), RunDirectory(short), Identity.create())
    await home.open()
    doors = Doors(home.rundir.path, home.pipes)
    await doors.open()
    assert not home.rundir.path.joinpath("k").exists()
    doors.lead_to(home.expect(Mark(home.home_id, "k", 2), Admission(digest("token"))))
    there = doors.connection(Signing("k" * 32))
    doors.publish()
    path = Path(f"{there.ip}-{there.ports['shell_port']}")
    assert not path.parent.exists()
    await asyncio.gather(doors.open(), doors.open())
    assert path.exists()
    doors.close()
    await doors.open()
    assert not path.parent.exists(), "who is closed lets nobody in"
    await home.aclose()
