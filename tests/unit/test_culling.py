"""Which kernels are idle for too long, and that they are ended at the same time."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone

import pytest
from jupyter_client.kernelspec import KernelSpec
from tornado import web
from traitlets.config import Config

from elsewhere.gateway.culling import Culling, is_due
from elsewhere.gateway.kernels import GatewayKernelManager
from elsewhere.gateway.mapping import GatewayMappingKernelManager

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("idle", "state", "connections", "culling", "due"),
    [
        (101, "idle", 0, Culling(100, False, False), True),
        (100, "idle", 0, Culling(100, False, False), False),
        (101, "idle", 1, Culling(100, False, False), False),
        (101, "idle", 1, Culling(100, True, False), True),
        (101, "busy", 0, Culling(100, False, False), False),
        (101, "busy", 0, Culling(100, True, False), False),
        (101, "busy", 0, Culling(100, False, True), True),
        (101, "busy", 1, Culling(100, False, True), False),
        (99, "busy", 0, Culling(100, True, True), False),
        (101, "dead", 1, Culling(100, False, False), True),
        (99, "dead", 0, Culling(100, True, True), False),
        (10**8, "idle", 0, Culling(0, True, True), False),
        (10**8, "dead", 0, Culling(-1, True, True), False),
    ],
)
def test_idle_busy_and_connected_count_as_in_jupyter_server(
    idle: int, state: str, connections: int, culling: Culling, due: bool
) -> None:
    last = NOW - timedelta(seconds=idle)
    seen = {"state": state, "connections": connections, "last_activity": last, "now": NOW}
    assert is_due(culling, pending=False, **seen) is due  # type: ignore[arg-type]
    assert is_due(culling, pending=True, **seen) is False  # type: ignore[arg-type]


class Kernels(GatewayMappingKernelManager):
    """Ends kernels only together: each end waits until ``together`` of them are under way."""

    together = 1
    failing = ""

    def add(self, kernel_id: str, idle: float, **metadata: object) -> GatewayKernelManager:
        manager = GatewayKernelManager(parent=self)
        manager._kernel_spec = KernelSpec(metadata=metadata)
        manager.execution_state = "idle"
        manager.last_activity = datetime.now(timezone.utc) - timedelta(seconds=idle)
        self._take(kernel_id, manager)
        return manager

    async def shutdown_kernel(  # type: ignore[override]
        self, kernel_id: str, now: bool = False, restart: bool = False
    ) -> None:
        self.ending.append(kernel_id)
        if len(self.ending) == self.together:
            self.all_ending.set()
        await self.all_ending.wait()
        if kernel_id == self.failing:
            raise web.HTTPError(500, "no")
        self._kernels.pop(kernel_id)

    def __init__(self, **settings: object) -> None:
        super().__init__(config=Config({"MappingKernelManager": settings}))
        self.ending: list[str] = []
        self.all_ending = asyncio.Event()


@pytest.fixture
def kernels() -> Kernels:
    return Kernels(cull_idle_timeout=100)


async def test_kernels_are_ended_at_the_same_time_and_one_that_fails_stops_no_other(kernels: Kernels) -> None:
    for kernel_id in ("a", "b", "c"):
        kernels.add(kernel_id, 1000)
    kernels.add("used", 1)
    kernels.together, kernels.failing = 3, "b"
    await kernels.cull_kernels()
    assert sorted(kernels.ending) == ["a", "b", "c"]
    assert kernels.list_kernel_ids() == ["b", "used"]
    assert kernels.metrics.registry.get_sample_value("elsewhere_kernels_culled_total") == 2


async def test_a_kernelspec_may_have_a_timeout_of_its_own(kernels: Kernels) -> None:
    kernels.together = 2
    kernels.add("patient", 1000, cull_idle_timeout=10_000)
    kernels.add("impatient", 50, cull_idle_timeout=10)
    kernels.add("usual", 1000)
    await kernels.cull_kernels()
    assert kernels.list_kernel_ids() == ["patient"]


async def test_a_kernel_that_is_starting_or_ending_is_left_alone(kernels: Kernels) -> None:
    starting = kernels.add("starting", 1000)
    starting.starting = asyncio.create_task(asyncio.sleep(0))
    kernels.add("ending", 1000).ending = True
    await kernels.cull_kernels()
    assert kernels.ending == []
    await starting.starting


async def test_a_kernel_whose_spec_was_removed_is_culled_all_the_same(kernels: Kernels) -> None:
    manager = kernels.add("k", 1000)
    manager._kernel_spec = None
    manager.kernel_name = "gone"
    await kernels.cull_kernels()
    assert kernels.list_kernel_ids() == []


async def test_connections_protect_unless_the_site_says_otherwise() -> None:
    kernels = Kernels(cull_idle_timeout=100)
    kernels.add("k", 1000)
    kernels.notify_connect("k")
    await kernels.cull_kernels()
    assert kernels.list_kernel_ids() == ["k"]
    kernels.cull_connected = True
    await kernels.cull_kernels()
    assert kernels.list_kernel_ids() == []


@pytest.mark.looptime
async def test_the_culler_looks_again_and_again_until_it_is_stopped() -> None:
    kernels = Kernels(cull_idle_timeout=100, cull_interval=7)
    looked = 0

    async def look() -> None:
        nonlocal looked
        looked += 1

    kernels.cull_kernels = look  # type: ignore[method-assign]
    kernels.initialize_culler()  # type: ignore[no-untyped-call]
    await asyncio.sleep(100)
    assert looked > 1
    kernels.stop_culling()
    before = looked
    await asyncio.sleep(1000)
    assert looked == before
    Kernels().stop_culling()
