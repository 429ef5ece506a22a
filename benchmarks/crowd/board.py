"""A switchboard and a roster alone, with thousands of simulated agents; prints what it measured as JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import resource
import secrets
import sys
import tempfile
import time
from pathlib import Path

from many import pss
from sampled import percentile, sample

from crowd.backend import CrowdBackend, CrowdConfig
from elsewhere.backend import Mark
from elsewhere.gateway.garbage import Garbage
from elsewhere.home import Home
from elsewhere.identity import Identity
from elsewhere.job import Job
from elsewhere.limits import most_open_files
from elsewhere.line import Admission
from elsewhere.roster import Roster
from elsewhere.rundir import RunDirectory
from elsewhere.settings import LaunchSettings, Switchboard
from elsewhere.switchboard import digest

IDLE = 20.0
"""Seconds in which nothing happens but surveys and signs of life."""


async def main(count: int, sockets: list[str]) -> None:
    """Take up as many kernels as a gateway does after its death, have all agents call, and be idle."""
    logging.basicConfig(level=logging.ERROR)
    most = most_open_files()
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    home = Home(Switchboard(), RunDirectory(), Identity.create(), orphan_grace=3600, publishes=False)
    await home.open()
    backend = CrowdBackend(home.home_id, CrowdConfig(sockets=sockets))
    taken: list[tuple[float, float]] = []
    sampler = asyncio.create_task(sample(taken))
    where = {"name": home.address.name, "ca": home.address.authority, "addresses": home.address.addresses}
    marks = [(Mark(home.home_id, f"kernel-{number}", 1), secrets.token_hex(32)) for number in range(count)]
    for number, (mark, token) in enumerate(marks):
        parcel = {
            "mark": {"home_id": mark.home_id, "kernel_id": mark.kernel_id, "launch": 1},
            "home": where,
            "token": token,
        }
        manager = backend.managers[number % len(backend.managers)]
        await manager.ask(do="submit", parcel=parcel, held=True)
    garbage = Garbage()
    garbage.start()
    before = pss_of_this()
    roster = Roster(backend)
    roster.start()
    jobs: list[Job] = []
    adopting = time.monotonic()
    for mark, token in marks:
        if len(jobs) % 100 == 0:
            await asyncio.sleep(0)
        line = home.expect(mark, Admission(digest(token)))
        entry = await roster.adopt(mark)
        jobs.append(Job.followed(entry, line, roster, LaunchSettings()))
    storm = time.monotonic()
    for manager in backend.managers:
        await manager.ask(do="go")
    while sum(job.line.ready for job in jobs) < count:
        await asyncio.sleep(0.2)
    connected = time.monotonic()
    asked = sum([(await manager.ask(do="count"))["surveys"] for manager in backend.managers])
    await asyncio.sleep(IDLE)
    idle = time.monotonic()
    asked = sum([(await manager.ask(do="count"))["surveys"] for manager in backend.managers]) - asked
    gc.collect()
    figures = {
        "adopted": storm - adopting,
        "storm": connected - storm,
        "kB": 1024 * (pss_of_this() - before) / count,
        "storm p50": percentile(taken, storm, connected, 50),
        "storm p99": percentile(taken, storm, connected, 99),
        "idle p50": percentile(taken, connected, idle, 50),
        "idle p99": percentile(taken, connected, idle, 99),
        "questions": asked / len(backend.managers) / (idle - connected),
    }
    sampler.cancel()
    garbage.close()
    print(json.dumps(figures))


def pss_of_this() -> float:
    """Megabytes of this process."""
    return pss(os.getpid())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ewb-", dir="/tmp") as directory:
        os.environ["XDG_RUNTIME_DIR"] = str(Path(directory))
        asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
