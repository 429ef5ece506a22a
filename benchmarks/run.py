"""Measure kernels of our provisioner (backend ``local``) against those of the stock local provisioner.

Both sides run in one process, by the same client code, in turn: what else this machine does meanwhile
falls on both, and the figures are medians of what each pair says, with quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from figures import Figure, Kind, percentile_99
from rich.console import Console

if TYPE_CHECKING:
    from measures import Session

ROOT = Path(__file__).resolve().parent.parent
STOCK, OURS = "bench-stock", "bench-ours"
ARGV = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=40"]
STANZA = {"provisioner_name": "elsewhere", "config": {"backend": "local"}}
GROUPS = ("start", "cold", "trips", "prints", "output")
MB = 1_000_000

T = TypeVar("T")
console = Console()


@dataclass(frozen=True)
class Effort:
    """How often each thing is measured."""

    starts: int
    cold: int
    trips: int
    trips_a_turn: int
    prints: int
    output: int

    def __str__(self) -> str:
        return (
            f"{self.starts} pairs of starts, restarts and stops, {self.cold} of cold starts, "
            f"{self.trips * self.trips_a_turn} round trips a side, {self.prints} pairs of 20,000 prints, "
            f"{self.output} pairs of 200 MB"
        )


FULL = Effort(starts=15, cold=9, trips=20, trips_a_turn=50, prints=7, output=7)
QUICK = Effort(starts=3, cold=2, trips=4, trips_a_turn=50, prints=2, output=2)


def main() -> None:
    """Measure what the command line asks for, and report it."""
    options = _parser().parse_args()
    effort = QUICK if options.quick else FULL
    groups = options.only or GROUPS
    with _isolated():
        figures = list(_measure(effort, groups))
    from report import document, show, store

    show(figures, console)
    raw = ROOT / "build" / "benchmarks" / "figures.json"
    store(figures, raw)
    console.print(f"single measurements: {raw.relative_to(ROOT)}")
    if not options.quick and groups == GROUPS:
        page = ROOT / "docs" / "performance.md"
        document(figures, str(effort), page)
        console.print(f"table: {page.relative_to(ROOT)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="A full run takes some minutes and writes the table into docs/performance.md. "
        "Leave the machine alone meanwhile. Raw numbers go to build/benchmarks/figures.json.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few pairs: to see that it works, not to quote")
    parser.add_argument(
        "--only", nargs="+", choices=GROUPS, metavar="GROUP", help=f"measure these: {', '.join(GROUPS)}"
    )
    return parser


def _measure(effort: Effort, groups: tuple[str, ...] | list[str]) -> Iterator[Figure]:
    if "start" in groups:
        yield from _lives(effort)
    if "cold" in groups:
        yield _cold_starts(effort)
    if {"trips", "prints", "output"} & set(groups):
        from measures import Session

        with _session(Session(STOCK)) as stock, _session(Session(OURS)) as ours:
            if "trips" in groups:
                yield from _round_trips(effort, stock, ours)
            if "prints" in groups:
                yield from _prints(effort, stock, ours)
            if "output" in groups:
                yield from _output(effort, stock, ours)


def _lives(effort: Effort) -> Iterator[Figure]:
    """Start, restart and stop, in a process that has started kernels of both kinds before."""
    from measures import Session

    informed = Figure("start to kernel_info reply, warm process", "s", Kind.RATIO_AT_MOST, 1.15)
    executed = Figure("start to first execute reply, warm process", "s", Kind.RATIO_AT_MOST, 1.15)
    restart = Figure("restart to first reply", "s", Kind.RATIO_AT_MOST, 1.15)
    stop = Figure("stop", "s", Kind.MORE_AT_MOST, 0.1)

    def life(name: str) -> tuple[tuple[float, float], float, float]:
        session = Session(name)
        return session.start(), session.restart(), session.stop()

    _pair(0, lambda: life(STOCK), lambda: life(OURS))
    for turn in _turns("starts, restarts, stops", effort.starts):
        theirs, ours = _pair(turn, lambda: life(STOCK), lambda: life(OURS))
        informed.add(theirs[0][0], ours[0][0])
        executed.add(theirs[0][1], ours[0][1])
        restart.add(theirs[1], ours[1])
        stop.add(theirs[2], ours[2])
    yield from (informed, executed, restart, stop)


def _cold_starts(effort: Effort) -> Figure:
    from measures import cold_start

    figure = Figure("start to kernel_info reply, new process", "s", Kind.RATIO_AT_MOST, 1.15)
    _pair(0, lambda: cold_start(STOCK), lambda: cold_start(OURS))
    for turn in _turns("cold starts", effort.cold):
        figure.add(*_pair(turn, lambda: cold_start(STOCK), lambda: cold_start(OURS)))
    return figure


def _round_trips(effort: Effort, stock: Session, ours: Session) -> Iterator[Figure]:
    p50 = Figure("round trip of `pass`, p50", "ms", Kind.MORE_AT_MOST, 1.5)
    p99 = Figure("round trip of `pass`, p99", "ms", Kind.MORE_AT_MOST, summary=percentile_99, paired=False)
    for session in (stock, ours):
        session.round_trips(20)
    count = effort.trips_a_turn
    for turn in _turns("round trips", effort.trips):
        theirs, own = _pair(turn, lambda: stock.round_trips(count), lambda: ours.round_trips(count))
        p50.add(sorted(theirs)[count // 2] * 1000, sorted(own)[count // 2] * 1000)
        p99.stock += [1000 * seconds for seconds in theirs]
        p99.ours += [1000 * seconds for seconds in own]
    yield from (p50, p99)


def _prints(effort: Effort, stock: Session, ours: Session) -> Iterator[Figure]:
    count = 20_000
    rate = Figure("20,000 flushed prints", "lines/s", Kind.RATIO_AT_LEAST, 0.9)
    lost = Figure("… of them lost, in all turns", "lines", Kind.MORE_AT_MOST, 0, summary=sum, paired=False)
    for turn in _turns("prints", effort.prints):
        theirs, own = _pair(turn, lambda: stock.prints(count), lambda: ours.prints(count))
        rate.add(theirs[0], own[0])
        lost.add(theirs[1], own[1])
        stock.settle()
        ours.settle()
    yield from (rate, lost)


def _output(effort: Effort, stock: Session, ours: Session) -> Iterator[Figure]:
    speed = Figure("200 MB of output", "MB/s", Kind.RATIO_AT_LEAST, 0.5, note="200 messages of 1 MB")
    lost = Figure("… of them lost, in all turns", "messages", Kind.MORE_AT_MOST, 0, summary=sum, paired=False)
    for turn in _turns("200 MB", effort.output):
        theirs, own = _pair(turn, lambda: stock.output(200, MB), lambda: ours.output(200, MB))
        speed.add(theirs[0], own[0])
        lost.add(theirs[1], own[1])
        stock.settle()
        ours.settle()
    yield from (speed, lost)


def _pair(turn: int, stock: Callable[[], T], ours: Callable[[], T]) -> tuple[T, T]:
    """Measure both, the one that goes first changing by turns."""
    if turn % 2:
        own = ours()
        return stock(), own
    theirs = stock()
    return theirs, ours()


def _turns(what: str, count: int) -> Iterator[int]:
    with console.status(what) as status:
        for turn in range(count):
            status.update(f"{what}: {turn + 1} of {count}")
            yield turn


@contextmanager
def _session(session: Session) -> Iterator[Session]:
    session.start()
    try:
        yield session
    finally:
        session.stop()


@contextmanager
def _isolated() -> Iterator[None]:
    """Give this process a home, Jupyter's directories and the two kernelspecs, all in a temporary place."""
    top = Path(tempfile.mkdtemp(prefix="ewb-", dir="/tmp"))  # a short path, for unix sockets
    try:
        for name in list(os.environ):
            if name.startswith(("JUPYTER", "IPYTHON", "JPY_", "KERNEL_")):
                del os.environ[name]
        (top / "run").mkdir(mode=0o700)
        _keep_bytecode(top / "bytecode")
        os.environ.update(
            HOME=str(top),
            XDG_RUNTIME_DIR=str(top / "run"),
            JUPYTER_CONFIG_DIR=str(top / "config"),
            JUPYTER_DATA_DIR=str(top / "data"),
            JUPYTER_RUNTIME_DIR=str(top / "run" / "jupyter"),
        )
        for name, metadata in ((STOCK, {}), (OURS, {"kernel_provisioner": STANZA})):
            spec = {"argv": ARGV, "display_name": name, "language": "python", "metadata": metadata}
            directory = top / "data" / "kernels" / name
            directory.mkdir(parents=True)
            (directory / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
        yield
    finally:
        sys.dont_write_bytecode = True  # what is imported from now on shall not bring the directory back
        try:
            _close_core()
        finally:
            shutil.rmtree(top, ignore_errors=True)


def _keep_bytecode(directory: Path) -> None:
    """Have modules compiled once, as an installed package's are, and not into the source tree."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(directory)
    sys.dont_write_bytecode = False


def _close_core() -> None:
    """End what our side runs in this process, while its directories are still there."""
    from elsewhere.core import Core

    if Core._shared is not None:
        Core._shared.close()


if __name__ == "__main__":
    main()
