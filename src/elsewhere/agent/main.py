"""The agent: one kernel at a time, one connection home, and the rules when to end the job."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import time
from typing import Any, Dict, List, Optional, Tuple

from . import order as orders
from . import spawn
from .boot import Booted
from .kernel import Kernel
from .link import HomeRefused, Link, Talk
from .mailbox import Mailboxes
from .mux import Stream
from .outbox import Outbox
from .pipes import Pipes
from .process import pass_on
from .spool import Spool
from .words import PROTOCOL, Accepted, Ack, Command, Hello, Opening, Report, Welcome, encode

STATUS_DELAY = 0.2
USAGE_INTERVAL = 10.0
GOODBYE_TIMEOUT = 2.0


def run(booted: Booted) -> int:
    """Run to the end of the job; returns the exit code of this program."""
    return asyncio.run(_run(booted))


async def _run(booted: Booted) -> int:
    return await Agent(booted).run()


class Agent:
    """Everything that one job's agent holds."""

    def __init__(self, booted: Booted) -> None:
        parcel = booted.parcel
        loop = asyncio.get_running_loop()
        self._graces: Dict[str, float] = parcel["graces"]
        self._directory = booted.directory
        self._orphan = False
        self._over: asyncio.Future[str] = loop.create_future()
        self._talk: Optional[Talk] = None
        self._instance = ""
        self._last_command = 0
        self._ended = False
        self._leaving: List[Kernel] = []
        self._idle_timer: Optional[asyncio.TimerHandle] = None
        self._orphan_timer: Optional[asyncio.TimerHandle] = None
        self._report_timer: Optional[asyncio.TimerHandle] = None
        self._sent: Optional[Tuple[Report, float]] = None
        spool = parcel["spool"]
        self._outbox = Outbox(
            Spool(booted.directory, memory=spool["memory"], disk=spool["disk"]),
            parcel["order"]["key"].encode(),
            self._status_changed,
        )
        mark = parcel["mark"]
        hello = Hello(
            protocol=PROTOCOL,
            home_id=mark["home_id"],
            kernel_id=mark["kernel_id"],
            launch=mark["launch"],
            token=parcel["token"],
            secret=os.urandom(32).hex(),
            agent=parcel["version"],
            host=socket.gethostname(),
        )
        self._link = Link(
            parcel["home"],
            hello,
            keepalive=self._graces["keepalive"],
            up=self._up,
            heard=self._heard,
            accept=self._accept,
            down=self._down,
        )
        self.kernel = Kernel(1, booted.directory, self._outbox, self._kernel_changed)
        self._pipes = Pipes(self.kernel_connection)
        self._mailboxes = Mailboxes(self._outbox, self.kernel_connection)
        self._booted = booted

    def kernel_connection(self) -> Optional[Dict[str, Any]]:
        """Where the kernel of now listens, or None when there is none."""
        return self.kernel.connection if self.kernel.alive else None

    async def run(self) -> int:
        """Serve until home, a grace or the manager ends the job."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(signum, self.end, "the job was told to end (%s)" % signum.name)
        self._watch_orphan_grace("home was never reached")
        booted = self._booted
        if booted.spawned is not None and booted.program is not None:
            self.kernel.adopt(booted.parcel["order"], booted.program, booted.spawned)
        else:
            self.kernel.fail("exec", booted.failure)
        link = loop.create_task(self._link.run())
        usage = loop.create_task(self._watch_usage())
        try:
            waiting: List[asyncio.Future[Any]] = [link, self._over]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            reason = self._over.result() if self._over.done() else _why(link)
            await self._goodbye(reason)
            return 0
        finally:
            usage.cancel()
            link.cancel()
            await asyncio.gather(usage, link, return_exceptions=True)
            self._mailboxes.close()
            self._outbox.spool.close()

    def end(self, reason: str) -> None:
        """End the job."""
        if not self._over.done():
            self._over.set_result(reason)

    async def _goodbye(self, reason: str) -> None:
        await self.kernel.stop(self._graces["stop"])
        self._pipes.abort_all()
        self._mailboxes.kernel_gone()
        self._ended = True
        shutil.rmtree(self._directory, ignore_errors=True)
        pass_on(("elsewhere agent: ending the job: %s\n" % reason).encode())
        if self._orphan and self._booted.scratch:
            shutil.rmtree(self._booted.scratch, ignore_errors=True)  # nobody will come to ask for it
        mux = self._link.mux
        if self._talk is None or mux is None:
            return
        self._talk.say(self.kernel.report()._replace(phase="ended", reason=reason))
        mux.close(reason)
        for _ in range(int(GOODBYE_TIMEOUT / 0.01)):
            if self._link.mux is None:
                return
            await asyncio.sleep(0.01)

    # ---- home

    def _up(self, welcome: Welcome, talk: Talk) -> None:
        if self._orphan_timer is not None:
            self._orphan_timer.cancel()
        if welcome.instance != self._instance:
            self._instance = welcome.instance
            self._last_command = 0
        self._pipes.keep_only(welcome.pipes)
        self._talk = talk
        self._sent = None
        self._send_report()

    def _down(self, reason: str) -> None:
        self._talk = None
        self._watch_orphan_grace(reason)

    def _watch_orphan_grace(self, reason: str) -> None:
        if self._orphan_timer is not None:
            self._orphan_timer.cancel()
        grace = self._graces["orphan"]
        self._orphan_timer = asyncio.get_running_loop().call_later(grace, self._orphaned, reason)

    def _orphaned(self, reason: str) -> None:
        self._orphan = True
        problem = self._link.problem or reason
        self.end("no answer from home for %g s (%s)" % (self._graces["orphan"], problem))

    def _accept(self, stream: Stream) -> None:
        self._pipes.accept(stream, {"iopub": self._attach_iopub, "mailbox": self._open_mailbox})

    def _attach_iopub(self, stream: Stream, opening: Opening, rest: bytes) -> None:
        stream.write(encode(Accepted(0)))
        if self._link.mux is not None:
            self._link.mux.before_flush = self._outbox.push  # a reply never overtakes output
        self._outbox.attach(stream, opening.received)
        if rest:
            stream.handler.stream_data(rest)

    def _open_mailbox(self, stream: Stream, opening: Opening, rest: bytes) -> None:
        self._mailboxes.accept(stream, opening, rest, self._instance)

    def _heard(self, word: Any) -> None:
        if not isinstance(word, Command):
            return
        error = ""
        if word.number > self._last_command:
            self._last_command = word.number
            try:
                self._do(word)
            except (OSError, OverflowError) as problem:
                error = str(problem)
        if self._talk is not None:
            self._talk.say(Ack(word.number, error))

    def _do(self, command: Command) -> None:
        if self._over.done() and command.verb == "start":
            raise OSError("the job is ending")
        if command.verb == "signal":
            self.kernel.signal(command.signum)
        elif command.verb == "end":
            self._graces["stop"] = command.grace
            self.end("home ended it")
        elif command.verb == "start" and command.order and command.order["start"] > self.kernel.start:
            self._start(command.order)

    # ---- the kernel

    def _start(self, order: Dict[str, Any]) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._pipes.abort_all()
        self._mailboxes.kernel_gone()
        self.kernel.abandon()
        if self.kernel.alive:
            self._leaving.append(self.kernel)
        directory = os.path.join(self._directory, str(order["start"]))
        self.kernel = Kernel(order["start"], directory, self._outbox, self._kernel_changed)
        try:
            os.mkdir(directory, 0o700)
            program = orders.prepare(order, directory)
            self.kernel.adopt(order, program, spawn.spawn(program.argv, program.env, program.cwd))
        except (OSError, ValueError, spawn.SpawnError) as error:
            self.kernel.fail("exec", str(error))

    def _reap(self) -> None:
        self.kernel.reap()
        for kernel in self._leaving:
            kernel.reap()
        self._leaving = [kernel for kernel in self._leaving if kernel.alive]
        if os.getpid() == 1:
            _reap_strangers()

    def _kernel_changed(self) -> None:
        if self.kernel.phase == "exited":
            self._pipes.abort_all()
            self._mailboxes.kernel_gone()
            self._watch_idle_grace()
        self._send_report()

    def _watch_idle_grace(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        grace = self._graces["idle"]
        self._idle_timer = asyncio.get_running_loop().call_later(
            grace, self.end, "no kernel and no order to start one for %g s" % grace
        )

    def _status_changed(self, state: str) -> None:
        self.kernel.execution_state = state
        if self._report_timer is None:
            self._report_timer = asyncio.get_running_loop().call_later(STATUS_DELAY, self._send_report)

    def _send_report(self) -> None:
        if self._report_timer is not None:
            self._report_timer.cancel()
            self._report_timer = None
        if self._talk is None or self._ended:
            return
        report = self.kernel.report()._replace(spooled=self._outbox.spool.held)
        active_at = self._outbox.active_at
        if (report, active_at) != self._sent:
            self._sent = report, active_at
            self._talk.say(report._replace(idle=time.monotonic() - active_at))

    async def _watch_usage(self) -> None:
        while True:
            await asyncio.sleep(USAGE_INTERVAL)
            self.kernel.measure()
            self._send_report()


def _why(link: asyncio.Task[None]) -> str:
    error = link.exception()
    if isinstance(error, HomeRefused):
        return "home refused this job: %s" % error
    return "the link failed: %r" % error


def _reap_strangers() -> None:
    """As process 1 of a container we inherit every orphan."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return
