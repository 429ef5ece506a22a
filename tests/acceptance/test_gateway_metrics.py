"""What a real gateway tells Prometheus, and whom."""

from __future__ import annotations

import os
import signal
import sys

from prometheus_client.parser import text_string_to_metric_families

from gateway_kit import Gateway, gateway_of
from site_kit import Site, until

BOOM = (sys.executable, "-c", "raise SystemExit(3)", "{connection_file}")

Samples = dict[tuple[str, str], float]


def told(gateway: Gateway) -> Samples:
    """Each sample's value, by its name and its one label of interest."""
    status, text = gateway.ask("GET", "/metrics")
    assert status == 200
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            word = labels.get("state") or labels.get("step") or labels.get("loop") or ""
            if "le" not in labels:
                found[sample.name, word] = sample.value
    return found


def test_metrics_tell_kernels_launches_links_and_loops(site: Site) -> None:
    site.spec()
    site.spec("boom", BOOM)
    with gateway_of(site) as gateway:
        kernel, boom = gateway.kernel(), gateway.kernel("boom")
        gateway.until_state(boom, "dead")
        gateway.until_state(kernel, "idle")
        figures = told(gateway)
        assert figures["elsewhere_kernels", "idle"] == 1
        assert figures["elsewhere_kernels", "dead"] == 1
        for step in ("submit", "queue", "agent", "kernel", "total"):
            assert figures["elsewhere_launch_step_seconds_count", step] == 1
        assert figures["elsewhere_launches_failed_total", "kernel"] == 1
        assert figures["elsewhere_agents_connected", ""] == 1
        assert figures["elsewhere_agent_connections_total", ""] >= 1
        assert figures["elsewhere_agent_reconnections_total", ""] == 0
        assert figures["elsewhere_agent_losses_total", ""] == 0
        assert figures["elsewhere_spool_bytes", ""] >= 0
        delays = [("elsewhere_loop_delay_seconds_count", loop) for loop in ("http", "core")]
        until(lambda: all(told(gateway)[one] > 1 for one in delays), "both loops are sampled")
        assert gateway.ask("POST", f"/api/kernels/{kernel}/restart")[0] == 200
        until(lambda: ("elsewhere_launch_step_seconds_count", "restart") in told(gateway), "the restart")
        _, text = gateway.ask("GET", "/metrics")
        assert "http_request_duration_seconds" in text
        assert 'kernel_currently_running_total{type="away"} 1.0' in text
        assert kernel not in text
        assert gateway.ask("DELETE", f"/api/kernels/{kernel}")[0] == 204
        assert ("elsewhere_kernels", "idle") not in told(gateway)
        assert told(gateway)["elsewhere_agent_losses_total", ""] == 0, "an end is no loss"
        assert gateway.ask("GET", "/metrics", token="")[0] == 403


def test_metrics_may_be_open_to_all_as_in_jupyter_server(site: Site) -> None:
    with gateway_of(site, "--ServerApp.authenticate_prometheus=False") as gateway:
        status, text = gateway.ask("GET", "/metrics", token="")
        assert status == 200
        assert "elsewhere_loop_delay_seconds" in text


def test_an_agent_that_is_lost_is_counted(site: Site) -> None:
    site.spec()
    with gateway_of(site) as gateway:
        gateway.until_state(gateway.kernel(), "idle")
        (agent,) = site.agents()
        os.kill(agent, signal.SIGKILL)
        until(lambda: told(gateway)["elsewhere_agents_connected", ""] == 0, "the agent is gone")
        assert told(gateway)["elsewhere_agent_losses_total", ""] == 1
