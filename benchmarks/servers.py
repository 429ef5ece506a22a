"""Measure our gateway against a stock jupyter_server with its own local kernels, in turn, by the same client.

What a front end sees is measured by `elsewhere bench`; here both servers are started, and the figures are
held against goals. The stock server's rate limit is off: with it, it drops most of 20,000 prints.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from figures import Figure, Kind  # noqa: E402
from rich.console import Console  # noqa: E402

from gateway_kit import PROGRAM, gateway_of  # noqa: E402 - found by the line above
from lab_kit import TOKEN, LabServer  # noqa: E402
from site_kit import new_site  # noqa: E402

GOALS = {
    "start to first reply": (Kind.RATIO_AT_MOST, 1.15),
    "restart to first reply": (Kind.RATIO_AT_MOST, 1.15),
    "stop": (Kind.MORE_AT_MOST, 0.1),
    "… of them lost": (Kind.MORE_AT_MOST, 0.0),
    "… of it lost": (Kind.MORE_AT_MOST, 0.0),
}
BEGIN, END = "<!-- servers: written by `benchmarks/servers.py` -->", "<!-- end of servers -->"


def main() -> None:
    """Measure, print a table, and write it into the documentation after a full run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="to see that it works, not to quote")
    parser.add_argument("--legacy", action="store_true", help="the websocket protocol in JSON")
    options = parser.parse_args()
    more = [flag for flag in ("--quick", "--legacy") if getattr(options, flag.strip("-"))]
    figures = measured(options.rounds, more)
    from report import document, show

    show(figures, Console())
    if not more:
        document(figures, f"{options.rounds} rounds", ROOT / "docs" / "performance.md", BEGIN, END)


def measured(rounds: int, more: list[str]) -> list[Figure]:
    """Run both servers, and return what was measured of them."""
    with new_site() as site:
        site.spec()
        with gateway_of(site) as gateway:
            stock = LabServer(site, gateway)
            stock.connects = ["--ZMQChannelsWebsocketConnection.limit_rate=False"]
            stock.start()
            try:
                ours = ("--token", gateway.token, "--spec", "away")
                against = ("--against", stock.url, "--against-token", TOKEN, "--against-spec", "python3")
                argv = [
                    PROGRAM,
                    "bench",
                    gateway.url,
                    *ours,
                    *against,
                    "--rounds",
                    str(rounds),
                    "--json",
                    *more,
                ]
                done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, text=True)
            finally:
                stock.stop(15)
    return [
        figure(one["name"], one["unit"], one["values"][stock.url], one["values"][gateway.url])
        for one in json.loads(done.stdout)
    ]


def figure(name: str, unit: str, stock: list[float], ours: list[float]) -> Figure:
    """Return one line of the table."""
    kind, goal = GOALS.get(name, (Kind.RATIO_AT_MOST, None))
    return Figure(name, unit, kind, goal, stock=stock, ours=ours)


if __name__ == "__main__":
    main()
