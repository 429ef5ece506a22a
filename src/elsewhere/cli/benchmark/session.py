"""What is measured of a kernel behind an API: by the same code for each server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from elsewhere.cli.benchmark.channels import Channels
from elsewhere.cli.client import Client, GatewayUnusable

PATIENCE = 120.0
ASK_AGAIN = 10.0
"""Seconds after which an unanswered request is sent again: a server may lose one while the kernel starts."""

QUIET = 2.0
"""Seconds without output after which, once the reply is here, nothing is expected to come any more."""

MB = 1_000_000


@dataclass(frozen=True)
class Effort:
    """How much is measured of one kernel, and how many are started at once."""

    trips: int
    prints: int
    messages: int
    kernels: int


FULL = Effort(trips=200, prints=20_000, messages=200, kernels=16)
QUICK = Effort(trips=20, prints=1_000, messages=10, kernels=3)

Figures = Iterator[tuple[str, str, float]]
"""Name, unit and value of each."""


class Measured(Protocol):
    """One kernel, from ``start`` to ``stop``, which may be called in any case. Times are in seconds."""

    def start(self) -> float:
        """Return how long it takes until the kernel's first reply."""

    def round_trips(self, count: int) -> list[float]:
        """Return how long each ``pass`` takes until both reply and idle are here."""

    def prints(self, count: int) -> tuple[float, int]:
        """Return the rate at which flushed prints come, in lines a second, and how many did not."""

    def output(self, count: int, size: int) -> tuple[float, int]:
        """Return the MB a second of ``count`` messages with ``size`` bytes of text, and how many are lost."""

    def restart(self) -> float:
        """Return how long a restart takes, to the new kernel's first reply."""

    def stop(self) -> float:
        """Return how long the end of the kernel takes; 0 if it never began."""


def life(kernel: Measured, effort: Effort) -> Figures:
    """Measure one kernel from its start to its end, which comes in any case."""
    try:
        yield "start to first reply", "s", kernel.start()
        trips = sorted(kernel.round_trips(effort.trips))
        yield "round trip of `pass`, p50", "ms", 1000 * median(trips)
        yield "round trip of `pass`, p99", "ms", 1000 * trips[len(trips) * 99 // 100]
        rate, lost = kernel.prints(effort.prints)
        yield "flushed prints", "lines/s", rate
        yield "… of them lost", "lines", lost
        rate, lost = kernel.output(effort.messages, MB)
        yield "output in messages of 1 MB", "MB/s", rate
        yield "… of it lost", "messages", lost
        yield "restart to first reply", "s", kernel.restart()
    finally:
        took = kernel.stop()
    yield "stop", "s", took


def together(make: Callable[[], Measured], effort: Effort) -> Figures:
    """Start many kernels at once, and have all print at once."""
    kernels = [make() for _ in range(effort.kernels)]
    prints = effort.prints // 10
    with ThreadPoolExecutor(effort.kernels) as threads:
        try:
            begin = time.perf_counter()
            list(threads.map(lambda kernel: kernel.start(), kernels))
            yield f"{effort.kernels} starts at once, to the last reply", "s", time.perf_counter() - begin
            begin = time.perf_counter()
            list(threads.map(lambda kernel: kernel.prints(prints), kernels))
            rate = effort.kernels * prints / (time.perf_counter() - begin)
            yield f"{effort.kernels} kernels that print at once", "lines/s", rate
        finally:
            list(threads.map(lambda kernel: kernel.stop(), kernels))


class Session:
    """One kernel behind a server, and one websocket to it. Seconds are those of a front end."""

    def __init__(self, client: Client, spec: str, *, v1: bool, env: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._asked = {"name": spec, **({"env": dict(env)} if env else {})}
        self._v1 = v1
        self._channels: Channels | None = None
        self._kernel_id = ""

    def start(self) -> float:
        """Return the seconds from the request to the first reply of the kernel."""
        begin = time.perf_counter()
        model = self._client.ask("POST", "api", "kernels", body=self._asked)
        self._kernel_id = model["id"]
        self._connect()
        return time.perf_counter() - begin

    def restart(self) -> float:
        """Return the seconds of a restart, to the new kernel's first reply."""
        self._open.close()
        begin = time.perf_counter()
        self._client.ask("POST", "api", "kernels", self._kernel_id, "restart")
        self._connect()
        return time.perf_counter() - begin

    def stop(self) -> float:
        """Return the seconds that the end of the kernel takes; 0 if it never began."""
        if not self._kernel_id:
            return 0.0
        if self._channels is not None:
            self._channels.close()
        begin = time.perf_counter()
        self._client.ask("DELETE", "api", "kernels", self._kernel_id)
        return time.perf_counter() - begin

    def round_trips(self, count: int) -> list[float]:
        """Return the seconds from sending ``pass`` until both reply and idle are here."""
        took = []
        for _ in range(count):
            begin = time.perf_counter()
            self._execute("pass")
            took.append(time.perf_counter() - begin)
        return took

    def prints(self, count: int) -> tuple[float, int]:
        """Return the rate at which flushed prints come, in lines a second, and how many did not."""
        seconds, text = self._execute(f"for i in range({count}): print(i, flush=True)")
        lines = text.split()
        return len(lines) / seconds, count - len(set(lines))

    def output(self, count: int, size: int) -> tuple[float, int]:
        """Return the MB a second of ``count`` messages with ``size`` bytes of text, and how many are lost."""
        code = f"text = 'x' * {size - 1} + '\\n'\nfor i in range({count}): print(text, end='', flush=True)"
        seconds, text = self._execute(code)
        return len(text) / seconds / 1e6, round((count * size - len(text)) / size)

    @property
    def _open(self) -> Channels:
        assert self._channels is not None, "it was started"
        return self._channels

    def _connect(self) -> None:
        self._channels = Channels(
            self._client.target, self._kernel_id, v1=self._v1, tls=self._client.tls, patience=PATIENCE
        )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._channels.reply(self._channels.send("kernel_info_request", {}), ASK_AGAIN):
                return
        raise GatewayUnusable(f"kernel {self._kernel_id} of {self._client.target.url} does not answer")

    def _execute(self, code: str) -> tuple[float, str]:
        """Return the seconds until reply and idle are here, and the text that was printed.

        A server that drops output may drop idle too: then the seconds until the last output.
        """
        begin = last = time.perf_counter()
        asked = self._open.send("execute_request", {"code": code, "silent": False, "allow_stdin": False})
        texts: list[str] = []
        replied = idle = False
        while not (replied and idle):
            heard = self._open.hear(QUIET if replied else PATIENCE)
            if heard is None:
                if not replied:
                    raise GatewayUnusable(f"no reply within {PATIENCE:g} s from {self._client.target.url}")
                return last - begin, "".join(texts)
            if heard.asked != asked:
                continue
            last = time.perf_counter()
            if heard.kind == "stream":
                texts.append(json.loads(heard.content)["text"])
            elif heard.channel == "shell":
                replied = True
            elif heard.kind == "status":
                idle = json.loads(heard.content)["execution_state"] == "idle"
        return last - begin, "".join(texts)
