"""A kernel without a server: jupyter_client's client on ZMQ, the limit of what a server can give."""

from __future__ import annotations

from measures import Session


class Bare:
    """Measured as a kernel behind a server is (``elsewhere.cli.benchmark.session.Measured``)."""

    def __init__(self, kernel_name: str) -> None:
        self._session = Session(kernel_name)
        self._started = False

    def start(self) -> float:
        """Return the seconds to the kernel's first reply."""
        self._started = True
        return self._session.start()[0]

    def round_trips(self, count: int) -> list[float]:
        """Return the seconds that each takes."""
        return self._session.round_trips(count)

    def prints(self, count: int) -> tuple[float, int]:
        """Return lines a second, and how many did not come."""
        return self._session.prints(count)

    def output(self, count: int, size: int) -> tuple[float, int]:
        """Return MB a second, and how many messages did not come."""
        return self._session.output(count, size)

    def restart(self) -> float:
        """Return the seconds to the new kernel's first reply."""
        return self._session.restart()

    def stop(self) -> float:
        """Return the seconds that it takes."""
        return self._session.stop() if self._started else 0.0
