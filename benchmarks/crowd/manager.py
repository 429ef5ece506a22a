"""A manager in a process of its own: each job is an agent with a real link home, and no kernel.

It speaks one line of JSON for another on a unix socket: submit, survey, cancel, go, count.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from typing import Any

from elsewhere.agent.link import HomeRefused, Link, Talk
from elsewhere.agent.mux import Stream
from elsewhere.agent.words import PROTOCOL, Ack, Command, Hello, Report, Welcome


class Agent:
    """One job: it calls home, says that its kernel is ready, does nothing, and ends when it is told."""

    def __init__(self, job_id: str, parcel: dict[str, Any], twin: Agent | None) -> None:
        mark = parcel["mark"]
        self.home_id: str = mark["home_id"]
        self.kernel_id: str = mark["kernel_id"]
        self.launch: int = mark["launch"]
        self.job_id = job_id
        self.task: asyncio.Task[None] | None = None
        self._talk: Talk | None = None
        hello = Hello(
            PROTOCOL,
            self.home_id,
            self.kernel_id,
            self.launch,
            parcel["token"],
            os.urandom(16).hex(),
            "crowd",
            "crowd",
        )
        self.link = Link(
            parcel["home"],
            hello,
            keepalive=15.0,
            up=self._up,
            heard=self._heard,
            accept=Stream.reset,
            down=self._down,
        )
        if twin is not None:
            self.link._tls = (
                twin.link._tls
            )  # thousands of them in one process share what a real one has alone

    @property
    def connected(self) -> bool:
        """Whether home has welcomed it."""
        return self._talk is not None

    def go(self) -> None:
        """Call home."""
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        with contextlib.suppress(HomeRefused):  # it calls once more after its end, and is told so
            await self.link.run()

    def _up(self, welcome: Welcome, talk: Talk) -> None:
        self._talk = talk
        talk.say(Report(1, "ready", pid=1, execution_state="idle", idle=0.0))

    def _down(self, reason: str) -> None:
        self._talk = None

    def _heard(self, word: Any) -> None:
        if isinstance(word, Command) and self._talk is not None:
            self._talk.say(Ack(word.number))
            if word.verb == "end" and self.link.mux is not None:
                self._talk.say(Report(1, "ended", reason="home ended it"))
                self.link.mux.close("home ended it")


class Crowd:
    """All jobs, and how often they were asked for."""

    def __init__(self) -> None:
        self.jobs: dict[str, Agent] = {}
        self.surveys = 0
        self.held: list[Agent] = []
        self._ids = iter(range(1, 10**9))

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked."""
        if asked["do"] == "submit":
            agent = Agent(f"job-{next(self._ids)}", asked["parcel"], next(iter(self.jobs.values()), None))
            self.jobs[agent.job_id] = agent
            if asked["held"]:
                self.held.append(agent)
            else:
                agent.go()
            return {"id": agent.job_id}
        if asked["do"] == "survey":
            self.surveys += 1
            home = asked["home"]
            jobs = [job for job in self.jobs.values() if job.home_id == home]
            live = [job for job in jobs if job.task is None or not job.task.done()]
            return {"jobs": [[job.kernel_id, job.launch, job.job_id] for job in live]}
        if asked["do"] == "cancel":
            gone = self.jobs.pop(asked["id"], None)
            if gone is not None and gone.task is not None:
                gone.task.cancel()
            return {}
        if asked["do"] == "go":
            held, self.held = self.held, []
            for agent in held:
                agent.go()
            return {}
        connected = sum(job.connected for job in self.jobs.values())
        return {"surveys": self.surveys, "jobs": len(self.jobs), "connected": connected, "at": time.time()}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one who asks, until he hangs up."""
        while line := await reader.readline():
            writer.write(json.dumps(self.answer(json.loads(line))).encode() + b"\n")
            await writer.drain()
        writer.close()


async def main(path: str) -> None:
    """Be a manager until killed."""
    server = await asyncio.start_unix_server(Crowd().serve, path, limit=1 << 24)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
