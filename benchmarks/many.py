"""Start many light kernels at once through a gateway, and look at its loops meanwhile.

The kernels are those of tests/stub_kernel.py, so that what is measured is ours: agents and gateway. A loop's
delay is how late a timer of it is called; both loops of the gateway are sampled from within.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from sampled import SampledGateway, percentile  # noqa: E402

from gateway_kit import Gateway, listed, no_jobs  # noqa: E402 - found by the line above
from site_kit import STUB, Site, new_site, until  # noqa: E402


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", type=int, default=200)
    report(parser.parse_args().kernels)


def report(count: int) -> None:
    """Run it all and print what was measured."""
    table = Table(title=f"{count} kernels at once, load of this machine before: {os.getloadavg()[0]:.1f}")
    for name in ("", "seconds", "main loop p50", "p99", "core loop p50", "p99"):
        table.add_column(name, justify="right")
    with new_site() as site:
        site.spec("stub", STUB, start_timeout=600)
        gateway = SampledGateway(site)
        gateway.start("--shutdown-kernels")
        try:
            marks, memory, files = lives(gateway, site, count)
            samples = gateway.sampled()
        finally:
            gateway.stop(15)
    for phase, begin, end in marks:
        cells = [phase, f"{end - begin:.2f}"]
        for loop in ("main", "core"):
            cells += [f"{percentile(samples[loop], begin, end, share):.1f} ms" for share in (50, 99)]
        table.add_row(*cells)
    console = Console()
    console.print(table)
    console.print(
        f"memory: gateway {memory['gateway'] / count:.2f} MB a kernel, agent {memory['agent']:.1f} MB, "
    )
    console.print(
        f"stub {memory['stub']:.1f} MB (PSS); open files of the gateway: {files / count:.1f} a kernel"
    )


def lives(
    gateway: Gateway, site: Site, count: int
) -> tuple[list[tuple[str, float, float]], dict[str, float], float]:
    """Start, use and delete the kernels; return the phases with their times, and what they take."""
    assert gateway.process is not None
    marks: list[tuple[str, float, float]] = []

    def phase(name: str, begin: float) -> None:
        marks.append((name, begin, time.monotonic()))

    warm = gateway.kernel("stub")
    gateway.until_state(warm, "idle")
    before, files = pss(gateway.process.pid), open_files(gateway.process.pid)
    with ThreadPoolExecutor(count) as threads:
        begin = time.monotonic()
        kernels = list(threads.map(lambda _: gateway.kernel("stub"), range(count)))
        phase("all posted", begin)
        until(lambda: all_idle(gateway), "all are ready", 600)
        phase("all ready", begin)
        after, files = pss(gateway.process.pid), open_files(gateway.process.pid) - files
        agents, stubs = site.agents(), site.job_processes("stub_kernel")
        memory = {
            "gateway": after - before,
            "agent": sum(map(pss, agents)) / len(agents),
            "stub": sum(map(pss, stubs)) / len(stubs),
        }
        begin = time.monotonic()
        list(threads.map(lambda kernel: execute(gateway, kernel), kernels))
        phase("all have executed", begin)
        begin = time.monotonic()
        time.sleep(3)
        phase("idle", begin)
        begin = time.monotonic()
        list(threads.map(lambda kernel: gateway.ask("DELETE", f"/api/kernels/{kernel}"), [*kernels, warm]))
        phase("all deleted", begin)
    assert not listed(gateway)
    no_jobs(site)
    return marks, memory, files


def all_idle(gateway: Gateway) -> bool:
    """Whether all are ready; asked twice a second, which is more than front ends do."""
    time.sleep(0.5)
    states = {model["execution_state"] for model in gateway.ask("GET", "/api/kernels")[1]}
    assert states <= {"starting", "idle", "busy"}, states
    return states <= {"idle", "busy"}


def execute(gateway: Gateway, kernel: str) -> None:
    """Run one thing in it."""
    with gateway.client(kernel) as client:
        assert client.run("print 2") == "0\n1\n"


def pss(pid: int) -> float:
    """Megabytes of a process: its own, and its part of what it shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no Pss")


def open_files(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


if __name__ == "__main__":
    main()
