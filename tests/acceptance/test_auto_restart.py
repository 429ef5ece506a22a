"""The stock restarter: a kernel that died comes back in its job, a job that is lost is told."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Callable

import pytest
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.ioloop.manager import AsyncIOLoopKernelManager

from client_kit import facts, kernel_of, until_async
from site_kit import PATIENCE, Site, gone


@pytest.fixture
async def manager(site: Site) -> AsyncIterator[AsyncIOLoopKernelManager]:
    manager = AsyncIOLoopKernelManager(kernel_name=site.spec())
    await manager.start_kernel()
    yield manager
    await manager.shutdown_kernel(now=True)


@pytest.fixture
async def client(manager: AsyncIOLoopKernelManager) -> AsyncIterator[AsyncKernelClient]:
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=PATIENCE)
    yield client
    client.stop_channels()


def told(manager: AsyncIOLoopKernelManager) -> list[str]:
    """What the restarter calls out from now on: ``restart``, ``dead``."""
    events: list[str] = []

    def hear(event: str) -> Callable[[], None]:
        return lambda: events.append(event)

    for event in ("restart", "dead"):
        manager.add_restart_callback(hear(event), event)
    return events


def restarted(manager: AsyncIOLoopKernelManager) -> bool:
    """Whether the manager has a kernel and is through with starting it."""
    return manager.ready.done() and kernel_of(manager).poll() is None


async def test_a_killed_kernel_is_restarted_in_its_job(
    site: Site,
    manager: AsyncIOLoopKernelManager,
    client: AsyncKernelClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    events, before, agents = told(manager), facts(manager), site.agents()
    (kernel,) = site.job_processes("connection.json")
    with caplog.at_level(logging.WARNING):
        os.kill(kernel, signal.SIGKILL)
        await until_async(lambda: "restart" in events, "the restart")
        await until_async(lambda: restarted(manager), "its end")
    await client.wait_for_ready(timeout=PATIENCE)
    reply = await client.execute_interactive("6 * 7", timeout=PATIENCE)
    assert reply["content"]["status"] == "ok"
    assert (facts(manager), site.agents()) == (before, agents)
    assert site.job_processes("connection.json") != [kernel]
    assert "dead" not in events
    assert "the kernel was ended by SIGKILL" in caplog.text


async def test_a_lost_job_is_dead_and_not_queued_anew(
    site: Site,
    manager: AsyncIOLoopKernelManager,
    client: AsyncKernelClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = told(manager)
    (agent,), (kernel,) = site.agents(), site.job_processes("connection.json")
    with caplog.at_level(logging.WARNING):
        os.kill(agent, signal.SIGKILL)
        await until_async(lambda: "dead" in events, "the restarter gives up")
    assert kernel_of(manager).job_lost
    assert "agent died" in kernel_of(manager).reason
    assert "SIGKILL" in kernel_of(manager).reason
    assert kernel_of(manager).reason in caplog.text
    assert kernel_of(manager).launch_number == 1
    assert events == ["dead"]
    await until_async(lambda: gone(kernel), "the kernel dies with its agent")
    assert site.agents() == []


async def test_a_user_may_restart_after_the_loss_of_the_job(
    site: Site, manager: AsyncIOLoopKernelManager, client: AsyncKernelClient
) -> None:
    """What a person asks for is a new job, for the same clients; and that is guarded as the first was."""
    events = told(manager)
    (agent,) = site.agents()
    os.kill(agent, signal.SIGKILL)
    await until_async(lambda: "dead" in events, "the restarter gives up")
    await manager.restart_kernel()
    await client.wait_for_ready(timeout=PATIENCE)
    assert kernel_of(manager).launch_number == 2
    events.clear()
    (kernel,) = site.job_processes("connection.json")
    os.kill(kernel, signal.SIGKILL)
    await until_async(lambda: "restart" in events, "the restart")
    await until_async(lambda: restarted(manager), "its end")
    await client.wait_for_ready(timeout=PATIENCE)
    assert kernel_of(manager).launch_number == 2
