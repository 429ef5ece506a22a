"""Where a gateway's time goes while kernels start, are listed, and print: a sampling profile of each.

py-spy looks at the process from outside (`pip install py-spy`). For each thread, the share of its busy
samples in which a function was on the stack, and in which it was at the top.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scale import managers, polled  # noqa: E402

from elsewhere.cli.benchmark.session import Session  # noqa: E402
from elsewhere.cli.client import Client, Target  # noqa: E402
from gateway_kit import Gateway, gateway_of  # noqa: E402 - found by the line above
from site_kit import new_site  # noqa: E402

RATE = 500
"""Samples a second."""
LINES = 14
IDLE = ("select", "epoll_wait", "wait (threading.py", "_worker (concurrent")


def main() -> None:
    """Profile what is asked for, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    loads = {"start": start, "poll": poll, "trips": trips, "prints": prints, "output": output}
    parser.add_argument("load", nargs="+", choices=loads)
    parser.add_argument("--seconds", type=int, default=8)
    options = parser.parse_args()
    for name in options.load:
        loads[name](options.seconds)


def start(seconds: int) -> None:
    """Kernels of simulated agents are started, as fast as one asks."""
    with new_site() as site, managers(site) as sockets:
        site.spec("crowd", ["kernel", "{connection_file}"], config={"cluster": "crowd"})
        site.toml(f'[clusters.crowd]\ntype = "crowd"\nsockets = {sockets!r}\n'.replace("'", '"'))
        with gateway_of(site) as gateway:
            profile(gateway, "start", seconds, lambda: gateway.kernel("crowd"), threads=4)


def poll(seconds: int) -> None:
    """A thousand idle kernels are listed."""
    with new_site() as site, managers(site) as sockets:
        site.spec("crowd", ["kernel", "{connection_file}"], config={"cluster": "crowd"})
        site.toml(f'[clusters.crowd]\ntype = "crowd"\nsockets = {sockets!r}\n'.replace("'", '"'))
        with gateway_of(site) as gateway:
            for _ in range(1000):
                gateway.kernel("crowd")
            profile(gateway, "poll", seconds, lambda: polled(gateway), threads=1)


def trips(seconds: int) -> None:
    """One front end executes `pass` again and again."""
    with_a_kernel("trips", seconds, lambda one: one.round_trips(10))


def prints(seconds: int) -> None:
    """One kernel prints short lines."""
    with_a_kernel("prints", seconds, lambda one: one.prints(2000))


def output(seconds: int) -> None:
    """One kernel prints long texts."""
    with_a_kernel("output", seconds, lambda one: one.output(20, 1_000_000))


def with_a_kernel(name: str, seconds: int, work: Callable[[Session], object]) -> None:
    """Profile a gateway with one real kernel."""
    with new_site() as site:
        site.spec()
        with gateway_of(site) as gateway:
            session = Session(Client(Target(gateway.url, gateway.token, "")), "away", v1=True)
            session.start()
            profile(gateway, name, seconds, lambda: work(session), threads=1)
            session.stop()


def profile(gateway: Gateway, name: str, seconds: int, work: Callable[[], object], threads: int) -> None:
    """Sample the gateway while the work is done again and again, and print where it was."""
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        sys.exit("py-spy is not installed: pip install py-spy")
    assert gateway.process is not None
    raw = ROOT / "build" / f"profile-{name}.txt"
    raw.parent.mkdir(exist_ok=True)
    options = [
        "--duration",
        str(seconds),
        "--rate",
        str(RATE),
        "--format",
        "raw",
        "--threads",
        "--nonblocking",
    ]
    argv = [spy, "record", *options, "--output", str(raw), "--pid", str(gateway.process.pid)]
    ends = time.monotonic() + seconds + 1

    def go_on(_: int) -> int:
        done = 0
        while time.monotonic() < ends:
            work()
            done += 1
        return done

    quiet = subprocess.DEVNULL
    with (
        ThreadPoolExecutor(threads) as pool,
        subprocess.Popen(argv, stdout=quiet, stderr=quiet) as spying,
    ):
        done = sum(pool.map(go_on, range(threads)))
        spying.wait()
    tell(f"{name}: {done / (seconds + 1):.1f} times a second", raw.read_text())


def tell(title: str, raw: str) -> None:
    """Print the table of each busy thread."""
    stacks: dict[str, Counter[tuple[str, ...]]] = {}
    for line in raw.splitlines():
        stack, _, times = line.rpartition(" ")
        thread, *frames = stack.split(";")
        if frames and not any(word in frames[-1] for word in IDLE):
            stacks.setdefault(thread, Counter())[tuple(frames)] += int(times)
    for thread, samples in sorted(stacks.items(), key=lambda item: -item[1].total()):
        total = samples.total()
        if total < RATE // 10:
            continue
        within: Counter[str] = Counter()
        top: Counter[str] = Counter()
        for called, count in samples.items():
            top[called[-1]] += count
            for frame in set(called):
                within[frame] += count
        table = Table(title=f"{title}; {thread}, {total} busy samples")
        for heading in ("at the top", "function", "on the stack", "function "):
            table.add_column(heading)
        ours = [(one, count) for one, count in within.most_common() if count < 0.97 * total]
        for (one, count), (other, held) in zip(top.most_common(LINES), ours[:LINES], strict=False):
            table.add_row(f"{count / total:.1%}", one, f"{held / total:.1%}", other)
        Console(width=180).print(table)


if __name__ == "__main__":
    main()
