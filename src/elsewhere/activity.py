"""When a kernel was last in use, as its agent tells."""

from __future__ import annotations

import time

from .agent.words import Report

LONGEST_IDLE = 1e9
"""Seconds above which no agent's word about its kernel's idleness is believed."""


class Activity:
    """``at``: the wall's time when the kernel was last in use; 0 as long as nothing is known."""

    def __init__(self) -> None:
        self.at = 0.0
        self._heard: Report | None = None

    def note(self, report: Report | None) -> None:
        """Take in a report, which may be the same again."""
        if report is None or report is self._heard:
            return
        before, self._heard = self._heard, report
        if 0 <= report.idle < LONGEST_IDLE:
            self.at = time.time() - report.idle
        elif before is None or "busy" in (report.execution_state, before.execution_state):
            self.at = time.time()  # an agent of protocol 1 does not tell
