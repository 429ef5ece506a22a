"""What the tests do with a kernel through the stock clients, in a word each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from site_kit import PATIENCE

Message = dict[str, Any]


@dataclass
class Ran:
    """What came of one execution."""

    reply: Message = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)

    @property
    def status(self) -> str:
        return str(self.reply["status"])

    @property
    def text(self) -> str:
        return "".join(one["content"]["text"] for one in self.of("stream"))

    @property
    def value(self) -> str:
        return "".join(one["content"]["data"]["text/plain"] for one in self.of("execute_result"))

    def of(self, kind: str) -> list[Message]:
        return [one for one in self.messages if one["msg_type"] == kind]


def run(
    client: BlockingKernelClient,
    code: str,
    *,
    answer: str = "",
    heard: Callable[[Message], object] = lambda message: None,
    complete: Callable[[Ran], object] = lambda ran: True,
) -> Ran:
    """Execute code to its idle; ``answer`` is given to whoever asks, ``heard`` gets each output.

    Some kernels say idle before their last output, whoever runs them: ``complete`` tells whether all
    that is expected has come.
    """
    ran = Ran()

    def output(message: Message) -> None:
        ran.messages.append(message)
        heard(message)

    ran.reply = client.execute_interactive(
        code,
        allow_stdin=bool(answer),
        timeout=PATIENCE,
        output_hook=output,
        stdin_hook=lambda message: client.input(answer),
    )["content"]
    while not complete(ran):
        ran.messages.append(client.get_iopub_msg(timeout=PATIENCE))
    return ran


@contextmanager
def started(name: str, **kwargs: Any) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A kernel with a connected client; shut down at the end."""
    manager = KernelManager(kernel_name=name)
    manager.start_kernel(**kwargs)
    try:
        with connected(manager) as client:
            yield manager, client
    finally:
        manager.shutdown_kernel(now=True)


@contextmanager
def connected(manager: KernelManager) -> Iterator[BlockingKernelClient]:
    """A client whose kernel answers; its channels are closed at the end."""
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE)
        yield client
    finally:
        client.stop_channels()


def facts(manager: KernelManager) -> tuple[object, ...]:
    """What must not change in a restart: the launch, the job, the endpoints."""
    kernel = kernel_of(manager)
    info = {name: value for name, value in manager.get_connection_info().items() if name != "key"}
    return kernel.launch_number, kernel.where, info, manager.session.key


def kernel_of(manager: Any) -> Any:
    """What our provisioner knows of the kernel."""
    return manager.provisioner.kernel


async def until_async(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Like ``until``, while the loop runs."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {patience:g} s: {what}")
        await asyncio.sleep(0.02)
