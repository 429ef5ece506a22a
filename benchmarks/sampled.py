"""A gateway whose event loops are sampled from within: how late each calls a timer, every 5 ms."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from gateway_kit import Gateway  # noqa: E402 - found by the line above
from site_kit import Site, until  # noqa: E402

EVERY = 0.005
"""Seconds between two samples of a loop."""

Samples = dict[str, list[tuple[float, float]]]


class SampledGateway(Gateway):
    """A gateway that tells its samples when it is asked."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.samples = site.root / "samples.json"
        self.serve = (sys.executable, __file__, str(self.samples), "--allow-root", "--ip=127.0.0.1")

    def sampled(self) -> Samples:
        """Return the samples of this life until now, by loop: when (monotonic), and how late in seconds."""
        assert self.process is not None
        self.samples.unlink(missing_ok=True)
        os.kill(self.process.pid, signal.SIGUSR1)
        until(self.samples.exists, "the gateway tells its samples")
        told: Samples = json.loads(self.samples.read_text())
        return told


def percentile(samples: list[tuple[float, float]], begin: float, end: float, share: int) -> float:
    """Return the delay in milliseconds that so many of a hundred samples of a time do not exceed."""
    late = sorted(late for at, late in samples if begin <= at < end)
    return 1000 * late[min(len(late) - 1, len(late) * share // 100)] if late else float("nan")


async def sample(taken: list[tuple[float, float]]) -> None:
    """Note how late this loop calls a timer, again and again."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY
        await asyncio.sleep(EVERY)
        taken.append((time.monotonic(), max(0.0, loop.time() - due)))


def serve(samples: Path, argv: list[str]) -> None:
    """Be a gateway."""
    from elsewhere.gateway.app import GatewayApp

    taken: Samples = {"main": [], "core": []}

    def tell(*_: object) -> None:
        begun = samples.with_suffix(".new")
        begun.write_text(json.dumps(taken))
        begun.replace(samples)

    class Sampled(GatewayApp):
        def start_app(self) -> None:
            super().start_app()
            signal.signal(signal.SIGUSR1, tell)
            self.io_loop.add_callback(sample, taken["main"])
            self.core.submit(sample(taken["core"]))

    Sampled.launch_instance(argv=argv)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2:])
