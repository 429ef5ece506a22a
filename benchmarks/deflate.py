"""On how slow a network permessage-deflate of websockets would pay: below the speed that is printed.

Each kind of message is compressed as tornado would, one after the other with one context. Compression pays
where a link is slower than what compressing saves: rate of compression × (1 - what is left).
"""

from __future__ import annotations

import base64
import io
import json
import random
import time
import zlib

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

MB = 1_000_000
KERNEL = {"session": "8" * 32, "username": "root", "version": "5.4", "date": "2026-01-01T00:00:00.000000Z"}


def main() -> None:
    """Measure and print."""
    table = Table("messages", "level", "left", "compressed at", "pays below")
    for name, content in (
        ("printed numbers", [{"name": "stdout", "text": f"{n}\n"} for n in range(20_000)]),
        ("1 MB of a program's log", [{"name": "stdout", "text": log()} for _ in range(10)]),
        ("a plot (PNG)", [{"data": {"image/png": plot()}, "metadata": {}} for _ in range(20)]),
        ("1 MB of random floats", [{"name": "stdout", "text": floats()} for _ in range(10)]),
    ):
        messages = [
            json.dumps({"header": {**KERNEL, "msg_id": f"{n:032x}"}, "content": one}).encode()
            for n, one in enumerate(content)
        ]
        for level in (1, 6):
            left, rate = compressed(messages, level)
            pays = max(0.0, rate * (1 - left))
            table.add_row(name, str(level), f"{left:.0%}", f"{rate:.0f} MB/s", f"{8 * pays:.0f} Mbit/s")
    Console().print(table)


def compressed(messages: list[bytes], level: int) -> tuple[float, float]:
    """Return what share is left, and MB a second."""
    context = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    size, left = sum(map(len, messages)), 0
    begin = time.perf_counter()
    for message in messages:
        left += len(context.compress(message) + context.flush(zlib.Z_SYNC_FLUSH))
    return left / size, size / MB / (time.perf_counter() - begin)


def log() -> str:
    """Lines as programs write them."""
    words = ["step", "epoch", "loss", "accuracy", "batch", "loaded", "wrote", "file", "checkpoint"]
    lines = (
        f"12:00:{n % 60:02d} INFO {random.choice(words)} {n} {random.random():.4f}" for n in range(30_000)
    )
    return "\n".join(lines)[:MB]


def floats() -> str:
    """Numbers without a pattern."""
    return " ".join(str(random.random()) for _ in range(55_000))[:MB]


def plot() -> str:
    """A picture as a kernel sends it."""
    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    axes.plot([random.random() for _ in range(200)])
    file = io.BytesIO()
    figure.savefig(file)
    pyplot.close(figure)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    main()
