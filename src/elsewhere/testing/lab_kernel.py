"""A kernel under the laws: started by a home, and talked to by one stock client."""

from __future__ import annotations

import asyncio
import queue
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient

from elsewhere.backend import JobId
from elsewhere.errors import LaunchFailed
from elsewhere.kernels import Kernel
from elsewhere.testing.witness import LawBroken
from elsewhere.wish import Connection, Wish

GREETING = 1.0
"""Seconds after which a kernel is greeted once more: a restart may have taken the greeting with it."""

SETTLED = 0.25
"""Seconds of silence after which all that was given to a client has been read."""

Message = dict[str, Any]


class Silence(LawBroken):
    """Nothing was heard in time."""


class Execution:
    """What comes of one request to execute. ``messages``: what was published of it, as far as it was read."""

    def __init__(self, of: LabKernel, request: str) -> None:
        self.messages: list[Message] = []
        self._of = of
        self._request = request

    @property
    def text(self) -> str:
        """All that was printed, as far as it was read."""
        return self.printed("stdout", "stderr")

    @property
    def value(self) -> str:
        """The value of the last expression, as text."""
        return "".join(one["content"]["data"]["text/plain"] for one in self.of_kind("execute_result"))

    def printed(self, *streams: str) -> str:
        """Return what was printed to these streams, as far as it was read."""
        streamed = [one["content"] for one in self.of_kind("stream")]
        return "".join(content["text"] for content in streamed if content["name"] in streams)

    def of_kind(self, kind: str) -> list[Message]:
        """Return the messages of this type, as far as they were read."""
        return [one for one in self.messages if one["msg_type"] == kind]

    async def until_printed(self, text: str) -> None:
        """Read until that was printed. Raises LawBroken."""
        while text not in self.text:
            await self._read(f"{text!r} is printed (so far: {self.text[-200:]!r})")

    async def until_asked(self) -> None:
        """Wait until the code asks for input. Raises LawBroken."""
        await self._of.heard("stdin", self._request, "the code asks for input")

    async def output(self) -> None:
        """Read to the end of its output. Raises LawBroken."""
        while not any(one["content"]["execution_state"] == "idle" for one in self.of_kind("status")):
            await self._read(f"the output ends (so far: {self.text[-200:]!r})")

    async def rest(self) -> None:
        """Read what its client has been given already."""
        try:
            while True:
                self.messages.append(await self._of.heard("iopub", self._request, "more", SETTLED))
        except Silence:
            return

    async def reply(self) -> Message:
        """Read to the end of its output, and return the content of the reply. Raises LawBroken."""
        await self.output()
        message = await self._of.heard("shell", self._request, "the reply comes")
        content: Message = message["content"]
        return content

    async def _read(self, what: str) -> None:
        self.messages.append(await self._of.heard("iopub", self._request, what))


class LabKernel:
    """A kernel that is tried, and one client of it.

    Waits no longer than ``patience`` for anything, and for no answer of a kernel that is over.
    """

    def __init__(self, kernel: Kernel, wish: Wish, patience: float, context: zmq.asyncio.Context) -> None:
        self.kernel = kernel
        self.wish = wish
        self._patience = patience
        self._context = context
        self._client: AsyncKernelClient | None = None

    @property
    def job_id(self) -> JobId:
        """The id of its job. Raises LawBroken while there is none."""
        job_id = self.kernel.where[1]
        if job_id is None:
            raise LawBroken(f"kernel {self.kernel.kernel_id} does not know the id of its job")
        return JobId(job_id)

    async def start(self) -> None:
        """Start it, in its job if there is one, and greet it. Raises LawBroken if it does not come up."""
        try:
            connection = await self.kernel.start(self.wish)
        except LaunchFailed as failure:
            raise LawBroken(str(failure)) from failure
        if self._client is None:
            self.connect(connection)
        await self.greet()

    def connect(self, connection: Connection) -> None:
        """Be its client from now on."""
        client = AsyncKernelClient(context=self._context)
        client.load_connection_info(connection.info)
        client.start_channels(hb=False)
        self._client = client

    def hang_up(self) -> None:
        """Be its client no longer."""
        if self._client is not None:
            self._client.stop_channels()
            self._client = None

    async def greet(self) -> None:
        """Wait until it answers. Raises LawBroken."""
        deadline = self._now() + self._patience
        while True:
            request = self._channels.kernel_info()
            try:
                await self.heard("shell", request, "the kernel answers", GREETING)
                return
            except Silence:
                if self._now() > deadline:
                    raise

    async def silent(self) -> None:
        """Wait until it does not answer any more, although it is not over. Raises LawBroken."""
        deadline = self._now() + self._patience
        while self._now() < deadline:
            try:
                await self.heard("shell", self._channels.kernel_info(), "an answer", GREETING)
            except Silence:
                return
        raise LawBroken(f"it still answers after {self._patience:g} s")

    async def run(self, code: str) -> Execution:
        """Execute code to its end. Raises LawBroken if it raises."""
        execution = self.begin(code)
        reply = await execution.reply()
        if reply["status"] != "ok":
            raise LawBroken(f"{code!r} raised {reply.get('ename')}: {reply.get('evalue')}")
        return execution

    def begin(self, code: str) -> Execution:
        """Have code executed, and wait for nothing."""
        return Execution(self, self._channels.execute(code, allow_stdin=True))

    def answer(self, text: str) -> None:
        """Give the code the input that it asks for."""
        self._channels.input(text)

    async def heard(self, channel: str, request: str, what: str, timeout: float | None = None) -> Message:
        """Return the next message on this channel that is of this request. Raises LawBroken."""
        deadline = self._now() + (timeout or self._patience)
        source = getattr(self._channels, f"{channel}_channel")
        while True:
            left = max(deadline - self._now(), 0.0)
            receiving = asyncio.ensure_future(source.get_msg(timeout=left))
            try:
                await self._unless_over(receiving, what)
                message: Message = receiving.result()
            except queue.Empty:
                raise Silence(f"not within {timeout or self._patience:g} s: {what}") from None
            finally:
                receiving.cancel()
                await asyncio.wait({receiving})
            if message["parent_header"].get("msg_id") == request:
                return message

    async def _unless_over(self, receiving: asyncio.Future[Message], what: str) -> None:
        while not receiving.done():
            change = self.kernel.changes.next()
            if self.kernel.poll() is not None:
                change.cancel()
                raise LawBroken(f"the kernel is over before {what}: {self.kernel.reason}")
            either: set[asyncio.Future[Any]] = {receiving, change}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            change.cancel()

    async def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait for something that changes with the kernel. Raises LawBroken."""
        deadline = self._now() + self._patience
        while True:
            change = self.kernel.changes.next()
            try:
                if holds():
                    return
                if self._now() >= deadline:
                    standing = self.kernel.standing
                    raise LawBroken(
                        f"not within {self._patience:g} s: {what} (it is {standing.state}: {standing.status})"
                    )
                await asyncio.wait({change}, timeout=deadline - self._now())
            finally:
                change.cancel()

    async def exited(self) -> int:
        """Wait until it is over, and return the exit code that is told. Raises LawBroken."""
        await self.until(lambda: self.kernel.poll() is not None, "the end of the kernel is told")
        exit_code = self.kernel.poll()
        assert exit_code is not None
        return exit_code

    async def interrupt(self) -> None:
        """Send SIGINT. Raises LawBroken if nobody says that this was done."""
        await within(self._patience, self.kernel.signal(signal.SIGINT), "the agent passes on a signal")

    async def restart(self) -> None:
        """End the kernel's process if it runs, and start it anew. Raises LawBroken."""
        if self.kernel.poll() is None:
            await within(self._patience, self.kernel.signal(signal.SIGKILL), "the agent passes on a signal")
        await self.exited()
        await self.start()

    async def stop(self) -> None:
        """End kernel and job, as a front end does that is told to shut down."""
        self.hang_up()
        await self.kernel.end()

    @property
    def _channels(self) -> AsyncKernelClient:
        if self._client is None:
            raise LawBroken(f"kernel {self.kernel.kernel_id} has no client")
        return self._client

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


async def within(patience: float, work: Awaitable[object], what: str) -> None:
    """Wait for it. Raises LawBroken once that took too long."""
    try:
        await asyncio.wait_for(work, patience)
    except asyncio.TimeoutError as error:
        raise LawBroken(f"not within {patience:g} s: {what}") from error
