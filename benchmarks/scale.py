"""Measure one gateway with a thousand kernels, and one switchboard with ten thousand, at simulated agents.

The agents have real links and no kernels, and run in processes of their own (benchmarks/crowd), which are
also the manager. What is measured is home's: memory (PSS), how late its event loops call a timer, how often
it asks the manager, how long a storm of calls lasts, and a death of the gateway with all that return.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from crowd.asking import ask  # noqa: E402
from figures import percentile_99, short  # noqa: E402
from many import open_files, pss  # noqa: E402
from report import insert, machine, row  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from sampled import SampledGateway, percentile  # noqa: E402

from gateway_kit import Gateway  # noqa: E402 - found by the line above
from site_kit import Site, new_site, until  # noqa: E402

MANAGERS = 2
POLLERS = 50
POLLS = 4
"""How often each of the pollers lists all kernels."""
IDLE = 30.0
PATIENCE = 600.0

BEGIN, END = "<!-- scale: written by `benchmarks/scale.py` -->", "<!-- end of scale -->"
HEADINGS = ("figure", "measured", "goal", "")


class Findings:
    """The lines of the table, told as they come."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, str]] = []

    def add(self, name: str, value: float, unit: str, goal: float | None = None) -> None:
        """Take one figure; a goal is the most that it may be."""
        reached = "–" if goal is None else "ok" if value <= goal else "missed"
        self.rows.append(
            (name, f"{short(value)} {unit}".strip(), "–" if goal is None else f"≤ {goal:.3g} {unit}", reached)
        )
        print(" | ".join(self.rows[-1]), file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print a table, and write it into the documentation after a full run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernels", type=int, default=1000, help="of the gateway (default: %(default)s)")
    parser.add_argument(
        "--agents", type=int, default=10_000, help="of the switchboard (default: %(default)s)"
    )
    parser.add_argument("--only", choices=["gateway", "switchboard"])
    options = parser.parse_args()
    findings = Findings()
    if options.only != "gateway":
        switchboard(findings, options.agents)
    if options.only != "switchboard":
        gateway(findings, options.kernels)
    table = Table(*HEADINGS)
    for cells in findings.rows:
        table.add_row(*cells)
    Console().print(table)
    if options.only is None and (options.kernels, options.agents) == (1000, 10_000):
        lines = [f"Measured on {machine()}.", "", row(HEADINGS), row(["---"] * 4), *map(row, findings.rows)]
        insert(ROOT / "docs" / "performance.md", BEGIN, END, lines)


def switchboard(findings: Findings, count: int) -> None:
    """Have that many agents call one switchboard at once."""
    with new_site() as site, managers(site) as sockets:
        argv = [sys.executable, "-m", "crowd.board", str(count), *sockets]
        done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT / "benchmarks")
        told = json.loads(done.stdout)
    what = f"{count:,} on a switchboard: "
    findings.add(what + "all have called", told["storm"], "s", 60)
    findings.add(what + "loop delay in the storm, p50", told["storm p50"], "ms")
    findings.add(what + "… p99", told["storm p99"], "ms", 50)
    findings.add(what + "memory of an idle one", told["kB"], "kB", 80)
    findings.add(what + "loop delay when idle, p50", told["idle p50"], "ms")
    findings.add(what + "… p99", told["idle p99"], "ms")
    findings.add(what + "questions to the manager", told["questions"], "/s", 1)


def gateway(findings: Findings, count: int) -> None:
    """Start that many kernels by HTTP, look at them idle, and kill the gateway."""
    what = f"{count:,} in a gateway: "
    with new_site() as site, managers(site) as sockets:
        site.spec("crowd", ["kernel", "{connection_file}"], config={"cluster": "crowd"})
        site.toml(f'[clusters.crowd]\ntype = "crowd"\nsockets = {json.dumps(sockets)}\n')
        serving = SampledGateway(site)
        serving.start()
        try:
            process = serving.process
            assert process is not None
            warm = serving.kernel("crowd")
            serving.until_state(warm, "idle")
            before, files = pss(process.pid), open_files(process.pid)
            began = time.monotonic()
            with ThreadPoolExecutor(16) as threads:
                list(threads.map(lambda _: serving.kernel("crowd"), range(count)))
            until(lambda: all_idle(serving, count + 1), "all are ready", PATIENCE)
            ready = time.monotonic()
            asked = questions(sockets)
            time.sleep(IDLE)
            idle = time.monotonic()
            asked = questions(sockets) - asked
            memory, files = pss(process.pid) - before, open_files(process.pid) - files
            polls = polled(serving)
            polling = time.monotonic()
            samples = serving.sampled()
            findings.add(what + "started by HTTP, all ready", ready - began, "s")
            for loop in ("main", "core"):
                findings.add(
                    what + f"{loop} loop delay meanwhile, p99",
                    percentile(samples[loop], began, ready, 99),
                    "ms",
                )
            findings.add(what + "memory of an idle one", 1024 * memory / count, "kB", 200)
            findings.add(what + "open files of an idle one", files / count, "")
            for loop in ("main", "core"):
                findings.add(
                    what + f"{loop} loop delay when idle, p50",
                    percentile(samples[loop], ready, idle, 50),
                    "ms",
                )
                findings.add(what + "… p99", percentile(samples[loop], ready, idle, 99), "ms", 10)
            findings.add(what + "questions to the manager", asked / IDLE, "/s", 1)
            findings.add(
                what + f"`GET /api/kernels` by {POLLERS} who ask all the time, p50",
                1000 * sorted(polls)[len(polls) // 2],
                "ms",
            )
            findings.add(what + "… p99", 1000 * percentile_99(polls), "ms")
            findings.add(
                what + "core loop delay meanwhile, p99", percentile(samples["core"], idle, polling, 99), "ms"
            )
            process.kill()
            process.wait()
            until(lambda: sum(told(one)["connected"] for one in sockets) == 0, "the links are lost")
            killed = time.monotonic()
            serving.start("--shutdown-kernels")
            until(lambda: sum(told(one)["connected"] for one in sockets) == count + 1, "all return", PATIENCE)
            returned = time.monotonic()
            until(lambda: all_idle(serving, count + 1), "all are idle again", PATIENCE)
            listed = time.monotonic()
            samples = serving.sampled()
            findings.add(what + "after a kill -9: all have called the next one", returned - killed, "s", 20)
            findings.add(what + "… and are shown idle", listed - killed, "s")
            for loop in ("main", "core"):
                findings.add(
                    what + f"{loop} loop delay meanwhile, p99",
                    percentile(samples[loop], killed, listed, 99),
                    "ms",
                )
        finally:
            serving.stop(15)


def polled(serving: Gateway) -> list[float]:
    """Have many list the kernels at the same time, again and again; return the seconds of each answer."""

    def poll(_: int) -> list[float]:
        took = []
        for _ in range(POLLS):
            begin = time.monotonic()
            assert serving.ask("GET", "/api/kernels")[0] == 200
            took.append(time.monotonic() - begin)
        return took

    with ThreadPoolExecutor(POLLERS) as threads:
        return [one for took in threads.map(poll, range(POLLERS)) for one in took]


def all_idle(serving: Gateway, count: int) -> bool:
    """Whether all are ready; asked twice a second."""
    time.sleep(0.5)
    states = [model["execution_state"] for model in serving.ask("GET", "/api/kernels")[1]]
    return states.count("idle") == count


def questions(sockets: list[str]) -> float:
    """Return how often each manager was asked until now, on average."""
    surveys: list[int] = [told(one)["surveys"] for one in sockets]
    return sum(surveys) / len(sockets)


def told(path: str) -> Any:
    """Return what a manager says of itself."""
    return ask(path, do="count")


@contextmanager
def managers(site: Site) -> Iterator[list[str]]:
    """Run the managers' processes, and have the backend found by whoever is started meanwhile."""
    plugin = site.root / "plugin" / "crowd-1.dist-info"
    plugin.mkdir(parents=True)
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: crowd\nVersion: 1\n")
    (plugin / "entry_points.txt").write_text("[elsewhere.backends]\ncrowd = crowd.backend:CrowdBackend\n")
    kept = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{ROOT / 'benchmarks'}:{plugin.parent}"
    sockets = [str(site.root / f"manager-{number}") for number in range(MANAGERS)]
    running = [subprocess.Popen([sys.executable, "-m", "crowd.manager", path]) for path in sockets]
    try:
        until(lambda: all(Path(path).exists() for path in sockets), "the managers listen")
        yield sockets
    finally:
        for process in running:
            process.kill()
            process.wait()
        if kept is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = kept


if __name__ == "__main__":
    main()
