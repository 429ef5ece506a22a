"""Measure our gateway against bare ZMQ, a stock jupyter_server and Enterprise Gateway, in turn.

Each round starts one kernel on each side, measures it, and starts many at once. The stock server's rate
limit is off: with it, it drops most of 20,000 prints. Of Enterprise Gateway less is printed, as it is slow.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from bare import Bare  # noqa: E402
from figures import Figure, Kind, short  # noqa: E402
from peers import DISTRIBUTED, LOCAL, USER, EnterpriseGateway  # noqa: E402
from plot import draw  # noqa: E402
from report import insert, machine, row, show  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from elsewhere.cli.benchmark.session import FULL, QUICK, Effort, Measured, Session, life, together  # noqa: E402
from elsewhere.cli.client import Client, GatewayUnusable, Target  # noqa: E402
from gateway_kit import Gateway, gateway_of  # noqa: E402 - found by the line above
from lab_kit import LabServer  # noqa: E402
from site_kit import new_site  # noqa: E402

BARE, STOCK, OURS, LEGACY = "bare ZMQ", "jupyter_server", "elsewhere", "elsewhere, legacy protocol"
EG_LOCAL, EG_REMOTE = "EG 3.3.0, local kernel", "EG 3.3.0, distributed kernel"
PEERS = (EG_LOCAL, EG_REMOTE)
PICTURE = "servers.svg"
BEGIN, END = "<!-- servers: written by `benchmarks/servers.py` -->", "<!-- end of servers -->"
ROUND_TRIP = "round trip of `pass`, p50"
PRINTS, OUTPUT = "flushed prints", "output in messages of 1 MB"
LOST = ("… of them lost", "… of it lost")
POLLED = (0, 1, 20)
"""Idle remote kernels, beside which `GET /api` is asked for."""
POLLS = 300

GOALS = (
    (OURS, STOCK, "start to first reply", Kind.RATIO_AT_MOST, 1.15),
    (OURS, STOCK, "restart to first reply", Kind.RATIO_AT_MOST, 1.15),
    (OURS, STOCK, "stop", Kind.MORE_AT_MOST, 0.1),
    (OURS, BARE, ROUND_TRIP, Kind.MORE_AT_MOST, 2.0),
    (OURS, BARE, PRINTS, Kind.RATIO_AT_LEAST, 0.9),
    (LEGACY, BARE, PRINTS, Kind.RATIO_AT_LEAST, 0.6),
    (OURS, BARE, OUTPUT, Kind.RATIO_AT_LEAST, 0.5),
    (OURS, STOCK, "… of them lost", Kind.MORE_AT_MOST, 0.0),
    (OURS, STOCK, "… of it lost", Kind.MORE_AT_MOST, 0.0),
)

Make = Callable[[], Measured]


@dataclass(frozen=True)
class Side:
    """One thing that is measured: how to make a kernel of it, and how much of it is measured."""

    make: Make
    effort: Effort


class Values:
    """What was measured: for each figure and side a value for each round."""

    def __init__(self) -> None:
        self.units: dict[str, str] = {}
        self.of: dict[tuple[str, str], list[float]] = {}
        self.breakdowns: dict[str, int] = {}

    def take(self, side: str, name: str, unit: str, value: float) -> None:
        """Take one."""
        self.units[name] = unit
        self.of.setdefault((name, side), []).append(value)

    def medians(self) -> dict[tuple[str, str], float]:
        """Return the medians, by figure and side."""
        return {of: median(values) for of, values in self.of.items()}

    def cell(self, name: str, side: str) -> str:
        """Return the median as text."""
        values = self.of.get((name, side))
        return f"{short(median(values))} {self.units[name]}" if values else "–"


def main() -> None:
    """Measure, print the tables, and write them into the documentation after a full run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="to see that it works, not to quote")
    parser.add_argument("--only", nargs="+", choices=["bare", "stock", "ours", "legacy", "eg"], default=None)
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    values = Values()
    with sides(options.only, effort) as (measured, polled):
        for name, (server, spec, env) in polled.items():
            poll(values, name, server, spec, env)
        for number in range(options.rounds):
            names = list(measured) if number % 2 == 0 else list(reversed(measured))
            for name in names:
                print(f"round {number + 1} of {options.rounds}: {name}", file=sys.stderr, flush=True)
                measure(values, name, measured[name])
    goals = list(compared(values))
    columns = list(measured)
    table = Table("figure", *columns)
    lines = [[name, *(values.cell(name, side) for side in columns)] for name in values.units]
    for cells in lines:
        table.add_row(*cells)
    Console().print(table)
    show(goals, Console())
    if not options.quick and options.only is None:
        heads = [row(["figure", *columns]), row(["---"] * (1 + len(columns)))]
        against = [
            row(["ours against", "ours", "other", "comparison (quartiles)", "goal", ""]),
            row(["---"] * 6),
        ]
        results = [row([one.cells[0], one.cells[2], one.cells[1], *one.cells[3:]]) for one in goals]
        text = [
            f"Measured on {machine()}; medians of {options.rounds} rounds.",
            *(f"{name} broke down in {times} of them." for name, times in values.breakdowns.items()),
            "",
            *heads,
            *map(row, lines),
            "",
        ]
        text += [f"![The same as bars]({PICTURE})", ""]
        insert(ROOT / "docs" / "performance.md", BEGIN, END, [*text, *against, *results])
        shown = {name: unit for name, unit in values.units.items() if name not in LOST}
        draw(shown, columns, values.medians(), ROOT / "docs" / PICTURE)


Polled = dict[str, tuple[Gateway, str, dict[str, str]]]


@contextmanager
def sides(only: Sequence[str] | None, effort: Effort) -> Iterator[tuple[dict[str, Side], Polled]]:
    """Run the servers; yield what is measured, by name, and whose `GET /api` is asked for."""

    def wanted(word: str) -> bool:
        return only is None or word in only

    less = replace(
        effort, trips=effort.trips // 2, prints=effort.prints // 10, messages=effort.messages // 10
    )
    found: dict[str, Side] = {}
    polled: Polled = {}
    with ExitStack() as stack:
        site = stack.enter_context(new_site())
        site.spec()
        gateway = stack.enter_context(gateway_of(site))
        if wanted("bare"):
            found[BARE] = Side(lambda: Bare("python3"), effort)
        if wanted("stock"):
            stock = LabServer(site, gateway)
            stock.connects = ["--ZMQChannelsWebsocketConnection.limit_rate=False"]
            stock.start()
            stack.callback(stock.stop, 15)
            found[STOCK] = Side(behind(stock, "python3"), effort)
        if wanted("ours"):
            found[OURS] = Side(behind(gateway, "away"), effort)
            polled[OURS] = (gateway, "away", {})
        if wanted("legacy"):
            found[LEGACY] = Side(behind(gateway, "away", v1=False), effort)
        if wanted("eg"):
            peer = EnterpriseGateway(site)
            peer.start()
            stack.callback(peer.stop, 15)
            found[EG_LOCAL] = Side(behind(peer, LOCAL, v1=False, env=USER), less)
            found[EG_REMOTE] = Side(behind(peer, DISTRIBUTED, v1=False, env=USER), less)
            polled[EG_REMOTE] = (peer, DISTRIBUTED, USER)
        yield found, polled


def measure(values: Values, name: str, side: Side) -> None:
    """Measure one side once. Where a peer breaks down, that is counted, and what it did before stands."""
    try:
        for figure in itertools.chain(life(side.make(), side.effort), together(side.make, side.effort)):
            values.take(name, *figure)
    except GatewayUnusable as error:
        if name not in PEERS:
            raise
        print(f"{name} broke down: {error}", file=sys.stderr, flush=True)
        values.breakdowns[name] = values.breakdowns.get(name, 0) + 1


def behind(server: Gateway, spec: str, *, v1: bool = True, env: dict[str, str] | None = None) -> Make:
    """Return how a kernel of this server is made."""
    client = Client(Target(server.url, server.token, "the benchmark"))
    return lambda: Session(client, spec, v1=v1, env=env)


def poll(values: Values, name: str, server: Gateway, spec: str, env: dict[str, str]) -> None:
    """Ask for `GET /api` again and again, beside more and more idle kernels."""
    client = Client(Target(server.url, server.token, "the benchmark"))
    kernels: list[Session] = []
    try:
        for count in POLLED:
            while len(kernels) < count:
                kernels.append(Session(client, spec, v1=False, env=env))
                kernels[-1].start()
            took = []
            for _ in range(POLLS):
                begin = time.perf_counter()
                client.ask("GET", "api")
                took.append(time.perf_counter() - begin)
            values.take(name, f"`GET /api` beside {count} idle kernels, p50", "ms", 1000 * median(took))
    finally:
        for kernel in kernels:
            kernel.stop()


def compared(values: Values) -> Iterator[Figure]:
    """Yield the figures that have goals, ours against the other."""
    for side, other, name, kind, goal in GOALS:
        theirs, ours = values.of.get((name, other)), values.of.get((name, side))
        if theirs and ours:
            yield Figure(
                f"{name}: {side} against {other}", values.units[name], kind, goal, stock=theirs, ours=ours
            )


if __name__ == "__main__":
    main()
