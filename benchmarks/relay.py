"""Measure what front ends of one gateway do to each other: long messages, and clients that do not read."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from many import pss  # noqa: E402
from report import insert, machine, row  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scale import HEADINGS, Findings  # noqa: E402

from elsewhere.cli.benchmark.channels import Channels  # noqa: E402
from elsewhere.cli.client import Target  # noqa: E402
from gateway_kit import Gateway, gateway_of  # noqa: E402 - found by the line above
from site_kit import new_site  # noqa: E402

PATIENCE = 300.0
BEGIN, END = "<!-- relay: written by `benchmarks/relay.py` -->", "<!-- end of relay -->"

TICKS = """
import time
for n in range({count}):
    print(time.monotonic(), flush=True)
    time.sleep(0.01)
"""
DISPLAYS = """
import time
from IPython.display import HTML, display
text = HTML('x' * 4_000_000)
for n in range({count}):
    display(text)
    time.sleep(0.5)
"""
PRINTS = "for n in range({count}): print(n, flush=True)"
FLOOD = "text = 'x' * 999_999 + '\\n'\nfor n in range({count}): print(text, end='', flush=True)"


def main() -> None:
    """Measure, print a table, and write it into the documentation after a full run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="to see that it works, not to quote")
    parser.add_argument("--read", nargs=3, metavar=("URL", "TOKEN", "KERNEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read_all(*options.read)
        return
    findings = Findings()
    with new_site() as site:
        site.spec()
        with gateway_of(site) as gateway:
            long_messages(findings, gateway, 3 if options.quick else 20)
            a_sleeper(findings, gateway, 5_000 if options.quick else 50_000, 1 if options.quick else 10)
            nobody_reads(findings, gateway, 5 if options.quick else 60)
    table = Table(*HEADINGS)
    for cells in findings.rows:
        table.add_row(*cells)
    Console().print(table)
    if not options.quick:
        lines = [f"Measured on {machine()}.", "", row(HEADINGS), row(["---"] * 4), *map(row, findings.rows)]
        insert(ROOT / "docs" / "performance.md", BEGIN, END, lines)


def long_messages(findings: Findings, gateway: Gateway, count: int) -> None:
    """How late a kernel's lines come, while another one displays 4 MB twice a second."""
    with kernel(gateway) as quick, kernel(gateway) as heavy, channels(gateway, quick) as ticking:
        ticks = TICKS.format(count=50 * count)
        lateness(ticking, ticks)
        quiet = lateness(ticking, ticks)
        reader = [sys.executable, __file__, "--read", gateway.url, gateway.token, heavy]
        with subprocess.Popen(reader, stdin=subprocess.PIPE) as other:
            assert other.stdin is not None
            other.stdin.write(DISPLAYS.format(count=count).encode())
            other.stdin.close()
            beside = lateness(ticking, ticks)
            other.wait()
    findings.add("a line of a kernel comes late, nothing else going on, p50", median(quiet), "ms")
    findings.add("… the latest of them", max(quiet), "ms")
    findings.add("… while another kernel displays 4 MB twice a second, p50", median(beside), "ms")
    findings.add("… the latest of them", max(beside), "ms", max(quiet) + 20)


def lateness(ticking: Channels, code: str) -> list[float]:
    """Return how late each line comes, in ms; the clock is the machine's, and so the kernel's too."""
    late = []
    for text in outputs(ticking, code):
        now = time.monotonic()
        late += [1000 * (now - float(line)) for line in text.split()]
    return late


def a_sleeper(findings: Findings, gateway: Gateway, count: int, seconds: float) -> None:
    """One client stops reading for some seconds, another does not; both get every line."""
    with kernel(gateway) as one, channels(gateway, one) as awake, channels(gateway, one) as sleeper:
        sleeper.reply(sleeper.send("kernel_info_request", {}), PATIENCE)
        began = time.monotonic()
        with ThreadPoolExecutor(1) as threads:
            asked = awake.send("execute_request", {"code": PRINTS.format(count=count)})
            reading = threads.submit(lambda: (list(texts(awake, asked)), time.monotonic() - began))
            time.sleep(seconds)
            slept = list(texts(sleeper, asked))
            read, took = reading.result()
    expected = list(map(str, range(count)))
    lost = [count - len(set("".join(one).split()) & set(expected)) for one in (read, slept)]
    doubled = [
        len("".join(one).split()) - count + gone for one, gone in zip((read, slept), lost, strict=True)
    ]
    findings.add(f"{count:,} prints, a client sleeps {seconds:g} s: the other has them all after", took, "s")
    findings.add("… lost by the one that reads", lost[0], "lines", 0)
    findings.add("… lost by the one that slept", lost[1], "lines", 0)
    findings.add("… doubled", sum(doubled), "lines", 0)


def nobody_reads(findings: Findings, gateway: Gateway, seconds: float) -> None:
    """What a client that stops reading costs the gateway, while its kernel prints a GB."""
    assert gateway.process is not None
    pid = gateway.process.pid
    with kernel(gateway) as one, channels(gateway, one) as stopped:
        stopped.reply(stopped.send("kernel_info_request", {}), PATIENCE)
        before = most = pss(pid)
        asked = stopped.send("execute_request", {"code": FLOOD.format(count=1000)})
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.5)
            most = max(most, pss(pid))
        received = sum(map(len, texts(stopped, asked)))
    findings.add(f"a client that stops reading for {seconds:g} s costs the gateway", most - before, "MB", 64)
    findings.add("… and then it gets, of 1,000 MB", received / 1e6, "MB")


def outputs(one: Channels, code: str) -> Iterator[str]:
    """Execute, and yield what is printed as it comes."""
    yield from texts(one, one.send("execute_request", {"code": code, "allow_stdin": False}))


def texts(one: Channels, asked: str) -> Iterator[str]:
    """Yield what a cell prints until it is idle."""
    while True:
        heard = one.hear(PATIENCE)
        assert heard is not None, "it goes on"
        if heard.asked == asked and heard.kind == "stream":
            yield json.loads(heard.content)["text"]
        elif (heard.asked, heard.kind) == (asked, "status") and b'"idle"' in heard.content:
            return


def read_all(url: str, token: str, kernel_id: str) -> None:
    """Be the client of the other kernel: execute what is on stdin and read all that comes."""
    target = Target(url, token, "the benchmark")
    one = Channels(target, kernel_id, v1=True, tls=None, patience=PATIENCE)
    for _ in outputs(one, sys.stdin.read()):
        pass
    one.close()


@contextmanager
def kernel(gateway: Gateway) -> Iterator[str]:
    """A kernel that is ready."""
    started = gateway.kernel()
    gateway.until_state(started, "idle")
    try:
        yield started
    finally:
        gateway.ask("DELETE", f"/api/kernels/{started}")


@contextmanager
def channels(gateway: Gateway, kernel_id: str) -> Iterator[Channels]:
    """A websocket."""
    target = Target(gateway.url, gateway.token, "the benchmark")
    one = Channels(target, kernel_id, v1=True, tls=None, patience=PATIENCE)
    try:
        yield one
    finally:
        one.close()


if __name__ == "__main__":
    main()
