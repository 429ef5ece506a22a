"""All the managers of kernels that jupyter_client has: blocking and async, of one kernel and of many."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import zmq
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import (
    AsyncKernelManager,
    KernelManager,
    run_kernel,
    start_new_async_kernel,
    start_new_kernel,
)
from jupyter_client.multikernelmanager import AsyncMultiKernelManager, MultiKernelManager

from client_kit import connected, facts, kernel_of, run, started
from site_kit import PATIENCE, Site, close_home

MANY = 3
WHERE = "import os; os.environ['ELSEWHERE_JOB']"


async def value(client: AsyncKernelClient, code: str) -> str:
    """Execute one expression and return what it shows."""
    values: list[str] = []

    def output(message: dict[str, Any]) -> None:
        if message["msg_type"] == "execute_result":
            values.append(message["content"]["data"]["text/plain"])

    await client.execute_interactive(code, timeout=PATIENCE, output_hook=output)
    return "".join(values)


def test_blocking(site: Site) -> None:
    with started(site.spec()) as (manager, client):
        assert run(client, "1 + 1").value == "2"
        assert manager.is_alive()
        manager.shutdown_kernel()
        assert not manager.is_alive()
        site.expect_nothing_left(home_lives=True)


async def test_async(site: Site) -> None:
    manager, client = await start_new_async_kernel(kernel_name=site.spec(), startup_timeout=PATIENCE)
    assert await value(client, "1 + 1") == "2"
    assert await manager.is_alive()
    before = facts(manager)
    await manager.restart_kernel()
    await client.wait_for_ready(timeout=PATIENCE)
    assert facts(manager) == before
    client.stop_channels()
    await manager.shutdown_kernel()
    assert not await manager.is_alive()
    site.expect_nothing_left(home_lives=True)


def test_the_short_ways_to_a_kernel(site: Site) -> None:
    name = site.spec()
    with run_kernel(kernel_name=name, startup_timeout=PATIENCE) as short:
        client: Any = short
        assert run(client, "1 + 1").value == "2"
    manager, client = start_new_kernel(kernel_name=name, startup_timeout=PATIENCE)
    assert run(client, "1 + 1").value == "2"
    client.stop_channels()
    manager.shutdown_kernel()


def test_several_clients_of_one_kernel(site: Site) -> None:
    """Each hears everything, and their replies are not mixed up."""
    with started(site.spec()) as (manager, client):
        other = BlockingKernelClient()  # manager.client() would share the session, and with it the address
        other.load_connection_info(manager.get_connection_info(session=False))
        other.start_channels()
        other.wait_for_ready(timeout=PATIENCE)
        run(client, "print('heard by all')")
        texts = ""
        while "heard by all" not in texts:
            message = other.get_iopub_msg(timeout=PATIENCE)
            texts += message["content"].get("text", "")
        ids = [one.execute(f"{number} + 1") for number in range(5) for one in (client, other)]
        replies = [one.get_shell_msg(timeout=PATIENCE) for _ in range(5) for one in (client, other)]
        assert [reply["parent_header"]["msg_id"] for reply in replies] == ids
        other.stop_channels()


def test_two_lives_of_one_manager(site: Site) -> None:
    """One that does not own its context may be started again: another job, which an exit ends as well."""
    with zmq.Context() as context:
        manager = KernelManager(kernel_name=site.spec(), context=context)
        manager.start_kernel()
        manager.shutdown_kernel()
        site.expect_nothing_left(home_lives=True)
        manager.start_kernel()
        with connected(manager) as client:
            assert run(client, "1 + 1").value == "2"
        assert kernel_of(manager).launch_number == 2
        close_home()
        site.expect_nothing_left()
        manager.cleanup_resources()


def test_many_blocking(site: Site) -> None:
    many: Any = MultiKernelManager()
    ids = [many.start_kernel(kernel_name=site.spec()) for _ in range(MANY)]
    jobs = set()
    for kernel_id in ids:
        with connected(many.get_kernel(kernel_id)) as client:
            jobs.add(run(client, WHERE).value)
    assert len(jobs) == MANY
    many.shutdown_kernel(ids[0])
    assert many.list_kernel_ids() == ids[1:]
    many.shutdown_all()
    site.expect_nothing_left(home_lives=True)


async def test_many_async_at_once(site: Site) -> None:
    many: Any = AsyncMultiKernelManager()  # typed as if it were blocking
    name = site.spec()
    ids = await asyncio.gather(*(many.start_kernel(kernel_name=name) for _ in range(MANY)))
    clients = [many.get_kernel(kernel_id).client() for kernel_id in ids]
    for client in clients:
        client.start_channels()
    await asyncio.gather(*(client.wait_for_ready(timeout=PATIENCE) for client in clients))
    jobs = await asyncio.gather(*(value(client, WHERE) for client in clients))
    assert len(set(jobs)) == MANY
    assert all(kernel_id in job for kernel_id, job in zip(ids, jobs, strict=True))
    await many.restart_kernel(ids[1])
    await clients[1].wait_for_ready(timeout=PATIENCE)
    assert await value(clients[1], WHERE) == jobs[1]
    for client in clients:
        client.stop_channels()
    await many.shutdown_all()
    site.expect_nothing_left(home_lives=True)


async def test_a_start_that_is_cancelled_leaves_nothing(site: Site) -> None:
    manager = AsyncKernelManager(kernel_name=site.spec(argv=("sleep", "1000")))
    starting = asyncio.ensure_future(manager.start_kernel())
    while not site.job_processes("sleep"):
        await asyncio.sleep(0.02)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    site.expect_nothing_left(home_lives=True)
    assert kernel_of(manager).poll() is not None
