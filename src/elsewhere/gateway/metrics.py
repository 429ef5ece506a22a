"""What Prometheus is told of one gateway, beside what jupyter_server tells.

Gauges are read from memory when somebody asks. No label holds a kernel's id or a user's name. Each
gateway has a registry of its own, so that there may be several in one process.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator, Mapping

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import PrometheusMetricsHandler
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from elsewhere.errors import LaunchFailed, SettingsError
from elsewhere.standing import Standing
from elsewhere.switchboard import Switchboard

STEPS = (
    ("submit", "asked", "submitted"),
    ("queue", "submitted", "running"),
    ("agent", "running", "agent home"),
    ("kernel", "agent home", "kernel ready"),
    ("total", "asked", "kernel ready"),
)
"""The steps of a launch, each with the moments at which it begins and ends."""

RESTART = "restart"
"""The one step of a start in a job that is there."""

LAUNCH_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200)
DELAY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """The figures of one gateway. ``standings``: its kernels now; ``switchboard``: once there is one."""

    def __init__(
        self, standings: Callable[[], Iterable[Standing]], switchboard: Callable[[], Switchboard | None]
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Memory(standings, switchboard))
        self._launches = Histogram(
            "elsewhere_launch_step_seconds",
            "How long the steps of successful launches took",
            ["cluster", "step"],
            buckets=LAUNCH_BUCKETS,
            registry=self.registry,
        )
        self._failures = Counter(
            "elsewhere_launches_failed",
            "Launches and restarts that failed, by the step that failed",
            ["cluster", "step"],
            registry=self.registry,
        )
        self._delays = Histogram(
            "elsewhere_loop_delay_seconds",
            "How late the event loops run what is due",
            ["loop"],
            buckets=DELAY_BUCKETS,
            registry=self.registry,
        )
        self.culled = Counter(
            "elsewhere_kernels_culled", "Kernels ended because nobody used them", registry=self.registry
        )

    def started(self, cluster: str, steps: Mapping[str, float]) -> None:
        """A kernel came up, with these moments."""
        known = [
            (step, steps[end] - steps[begin]) for step, begin, end in STEPS if {begin, end} <= steps.keys()
        ]
        if len(known) == 1:
            known = [(RESTART, known[0][1])]
        for step, seconds in known:
            self._launches.labels(cluster, step).observe(max(0.0, seconds))

    def failed(self, cluster: str, error: Exception) -> None:
        """A kernel did not come up."""
        step = "settings" if isinstance(error, SettingsError) else "other"
        if isinstance(error, LaunchFailed):
            step = error.step
        self._failures.labels(cluster, step).inc()

    def delay_of(self, loop: str) -> Callable[[float], None]:
        """Return who is told the delays of this loop; may be called from its thread."""
        return self._delays.labels(loop).observe


class _Memory(Collector):
    """Reads what the gateway holds anyway."""

    def __init__(
        self, standings: Callable[[], Iterable[Standing]], switchboard: Callable[[], Switchboard | None]
    ) -> None:
        self._standings = standings
        self._switchboard = switchboard

    def describe(self) -> Iterator[Metric]:
        """Return nothing: names do not clash in a registry of one's own."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Read all now."""
        standings = list(self._standings())
        kernels = GaugeMetricFamily("elsewhere_kernels", "Kernels listed", labels=["cluster", "state"])
        for key, number in Count((one.cluster, one.state) for one in standings).items():
            kernels.add_metric(key, number)
        yield kernels
        spooled: dict[str, int] = {}
        for one in standings:
            spooled[one.cluster] = spooled.get(one.cluster, 0) + one.spooled
        spool = GaugeMetricFamily(
            "elsewhere_spool_bytes", "Output that waits at agents, by their last reports", labels=["cluster"]
        )
        for cluster, size in spooled.items():
            spool.add_metric([cluster], size)
        yield spool
        switchboard = self._switchboard()
        if switchboard is not None:
            yield from _links(switchboard)


def _links(switchboard: Switchboard) -> Iterator[Metric]:
    connected = sum(line.connected for line in list(switchboard.lines.values()))
    yield GaugeMetricFamily("elsewhere_agents_connected", "Agents with a connection now", connected)
    figures = switchboard.figures
    yield CounterMetricFamily("elsewhere_agent_connections", "Hellos that were welcomed", figures.welcomed)
    yield CounterMetricFamily(
        "elsewhere_agent_reconnections",
        "Those of them by agents that had been here since this gateway began",
        figures.returned,
    )
    yield CounterMetricFamily(
        "elsewhere_agent_losses", "Connections lost while their launch was wanted", figures.lost
    )
    yield CounterMetricFamily("elsewhere_agents_refused", "Hellos that were refused", figures.refused)


class MetricsHandler(PrometheusMetricsHandler):
    """``/metrics``: jupyter_server's, under its own rule of who may see them, and ours."""

    @allow_unauthenticated
    def get(self) -> None:
        """Tell all figures."""
        super().get()
        metrics: Metrics = self.settings["kernel_manager"].metrics
        self.write(generate_latest(metrics.registry))
