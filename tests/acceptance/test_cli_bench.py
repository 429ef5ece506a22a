"""``elsewhere bench`` against a real gateway, and against a stock server in turn with it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from gateway_kit import PROGRAM, Gateway, gateway_of, listed, no_jobs
from site_kit import PATIENCE, Site

FIGURES = [
    "start to first reply",
    "round trip of `pass`, p50",
    "round trip of `pass`, p99",
    "flushed prints",
    "… of them lost",
    "output in messages of 1 MB",
    "… of it lost",
    "restart to first reply",
    "stop",
    "3 starts at once, to the last reply",
    "3 kernels that print at once",
]


def bench(*argv: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PROGRAM, "bench", *argv], capture_output=True, text=True, timeout=2 * PATIENCE, check=False
    )
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def gateway(site: Site) -> Iterator[Gateway]:
    site.spec()
    with gateway_of(site) as gateway:
        yield gateway


@pytest.mark.parametrize("protocol", [(), ("--legacy",)], ids=["v1", "legacy"])
def test_each_figure_is_measured_and_nothing_is_left(
    gateway: Gateway, site: Site, protocol: tuple[str, ...]
) -> None:
    kernel = gateway.kernel()
    done = bench("--quick", "--rounds", "1", "--spec", "away", "--json", *protocol)
    figures = json.loads(done.stdout)
    assert [one["name"] for one in figures] == FIGURES
    assert all(list(one["values"]) == [f"http://127.0.0.1:{gateway.port}"] for one in figures)
    assert {one["name"]: one["values"][gateway.url] for one in figures if "lost" in one["name"]} == {
        "… of them lost": [0],
        "… of it lost": [0],
    }
    assert listed(gateway) == [kernel], "those that run are left alone"
    gateway.ask("DELETE", f"/api/kernels/{kernel}")
    no_jobs(site)


def test_two_servers_are_compared(gateway: Gateway) -> None:
    """The same gateway by two names is as good as two servers."""
    other = f"http://localhost:{gateway.port}"
    done = bench(
        "--quick", "--rounds", "1", "--spec", "away", "--against", other, "--against-token", gateway.token
    )
    assert "ratio" in done.stdout
    assert done.stdout.count("×") == len(FIGURES) - 2, "what is not lost has no ratio"
    assert listed(gateway) == []


@pytest.mark.parametrize(
    ("argv", "expect", "word"),
    [
        (("--spec", "away2"), 1, "did you mean `away`?"),
        (("--against", "x:1"), 1, "http://"),
        (("--rounds", "0"), 2, "x>=1"),
        (("http://127.0.0.1:1",), 1, "does not answer"),
    ],
)
def test_what_is_wrong_is_told(gateway: Gateway, argv: tuple[str, ...], expect: int, word: str) -> None:
    assert word in bench("--quick", *argv, expect=expect).stderr
    assert listed(gateway) == []
