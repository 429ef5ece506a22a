"""The steps of a run, each printed with its time when it is reached."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import datetime

from rich.console import Console
from rich.text import Text


class Steps:
    """Prints each step when it is reached, with the seconds since the first. For any thread."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begin: float | None = None
        self._told: set[str] = set()
        self._turn = threading.Lock()

    def tell(self, step: str, detail: str = "", at: float | None = None) -> None:
        """Print one step."""
        at = time.time() if at is None else at
        with self._turn:
            if self._begin is None:
                self._begin = at
            line = Text.assemble((f"{at - self._begin:6.2f} s", "cyan"), f"  {step:<14}", (detail, "dim"))
            line.rstrip()
            if self._console.is_terminal:
                line.truncate(self._console.width, overflow="ellipsis")
            self._console.print(line)

    def tell_new(self, steps: Mapping[str, str], details: Mapping[str, str]) -> None:
        """Print those of a kernel's steps that were not told yet; their times are as in ISO 8601."""
        for step, at in steps.items():
            if step not in self._told:
                self._told.add(step)
                self.tell(
                    step, details.get(step, ""), datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()
                )
