"""The figures of a gateway: steps of launches, what is read from memory, and the delay of loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import generate_latest

from elsewhere.errors import ElsewhereError, LaunchFailed, SettingsError
from elsewhere.gateway.loopdelay import LoopDelay
from elsewhere.gateway.mapping import GatewayMappingKernelManager
from elsewhere.gateway.metrics import STEPS, Metrics
from elsewhere.standing import NOWHERE
from elsewhere.switchboard import Figures

MOMENTS = {"asked": 0.0, "submitted": 1.0, "running": 11.0, "agent home": 11.5, "kernel ready": 13.0}


def figures(**values: Any) -> Metrics:
    standings, switchboard = values.get("standings", []), values.get("switchboard")
    return Metrics(lambda: standings, lambda: switchboard)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"elsewhere_{name}", labels)


def test_each_step_of_a_launch_is_a_histogram() -> None:
    metrics = figures()
    metrics.started("c", MOMENTS)
    took = {step: value(metrics, "launch_step_seconds_sum", cluster="c", step=step) for step, _, _ in STEPS}
    assert took == {"submit": 1, "queue": 10, "agent": 0.5, "kernel": 1.5, "total": 13}
    metrics.started("c", {"asked": 5.0, "kernel ready": 5.25})
    assert value(metrics, "launch_step_seconds_sum", cluster="c", step="restart") == 0.25
    assert value(metrics, "launch_step_seconds_count", cluster="c", step="total") == 1


def test_a_clock_that_was_set_back_is_no_negative_time() -> None:
    metrics = figures()
    metrics.started("c", {**MOMENTS, "kernel ready": 2.0})
    assert value(metrics, "launch_step_seconds_sum", cluster="c", step="kernel") == 0


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (LaunchFailed("queue", "waited"), "queue"),
        (SettingsError("spec", "wrong"), "settings"),
        (ElsewhereError("else"), "other"),
        (RuntimeError("fault"), "other"),
    ],
)
def test_failures_are_counted_by_their_step(error: Exception, step: str) -> None:
    metrics = figures()
    metrics.failed("c", error)
    assert value(metrics, "launches_failed_total", cluster="c", step=step) == 1


def test_what_is_in_memory_is_read_when_somebody_asks() -> None:
    standings = [
        replace(NOWHERE, cluster="a", state="idle", spooled=3),
        replace(NOWHERE, cluster="a", state="idle", spooled=4),
        replace(NOWHERE, cluster="b", state="queued"),
    ]
    lines = {1: SimpleNamespace(connected=True), 2: SimpleNamespace(connected=False)}
    switchboard = SimpleNamespace(lines=lines, figures=Figures(welcomed=5, returned=2, refused=1, lost=3))
    metrics = figures(standings=standings, switchboard=switchboard)
    assert value(metrics, "kernels", cluster="a", state="idle") == 2
    assert value(metrics, "kernels", cluster="b", state="queued") == 1
    assert value(metrics, "spool_bytes", cluster="a") == 7
    assert value(metrics, "agents_connected") == 1
    assert value(metrics, "agent_connections_total") == 5
    assert value(metrics, "agent_reconnections_total") == 2
    assert value(metrics, "agents_refused_total") == 1
    assert value(metrics, "agent_losses_total") == 3
    standings.clear()
    assert value(metrics, "kernels", cluster="a", state="idle") is None


async def test_several_gateways_in_one_process_do_not_clash() -> None:
    first, second = GatewayMappingKernelManager(), GatewayMappingKernelManager()
    first.metrics.culled.inc()
    assert value(first.metrics, "kernels_culled_total") == 1
    assert value(second.metrics, "kernels_culled_total") == 0
    assert b"elsewhere_kernels" in generate_latest(second.metrics.registry)


class Loop:
    """A clock, and what is due by it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Callable[..., None], tuple[object, ...]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[..., None], *args: object) -> asyncio.TimerHandle:
        entry = (when, call, args)
        self.due.append(entry)
        return SimpleNamespace(cancel=lambda: self.due.remove(entry))  # type: ignore[return-value]

    def run_late(self, late: float) -> None:
        when, call, args = self.due.pop(0)
        self.now = when + late
        call(*args)


def test_the_delay_of_a_loop_is_how_late_it_runs_what_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    told: list[float] = []
    delay = LoopDelay(told.append, interval=1.0)
    delay.start()
    for late in (0.0, 0.25, 2.0, 0.5):
        loop.run_late(late)
    assert told == [0.0, 0.25, 2.0, 0.5]
    delay.close()
    delay.close()
    assert loop.due == []


async def test_a_blocked_loop_is_seen() -> None:
    seen: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def tell(late: float) -> None:
        if not seen.done():
            seen.set_result(late)

    delay = LoopDelay(tell, interval=0.001)
    delay.start()
    deadline = asyncio.get_running_loop().time() + 0.05
    while asyncio.get_running_loop().time() < deadline:
        pass
    assert await seen >= 0.04
    delay.close()
