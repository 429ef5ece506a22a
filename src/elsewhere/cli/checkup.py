"""A canary kernel: launched, talked to and ended step by step, each with its time and what was found."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from elsewhere.cli.advice import look_at
from elsewhere.cli.canary import STEPS, Canary, Skipped
from elsewhere.errors import ElsewhereError, LaunchFailed

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
PATIENT = ("settings", "capacity", "render", "stop", "nothing left")
PATIENCE = 30.0
"""Seconds that these may take at least, however impatient one is: no manager is waited for, or the canary
is to be ended all the same."""
LINES = 20
LOG_TIMEOUT = 10.0


@dataclass(frozen=True)
class Step:
    """How one step ended. ``look_at`` and ``log`` (the job's last lines) are those of a failed one."""

    name: str
    outcome: str
    seconds: float = 0.0
    finding: str = ""
    look_at: str = ""
    log: Sequence[str] = ()


class Checkup:
    """Runs the steps, and tells each at its end. Once one fails the others are skipped, but for the
    canary's end."""

    def __init__(self, canary: Canary, timeout: float, tell: Callable[[Step], None]) -> None:
        self.canary = canary
        self.interrupted = False
        self.steps: list[Step] = []
        self.under_way: str | None = None
        self.began = time.monotonic()
        self._timeout = timeout
        self._tell = tell
        self._task: asyncio.Task[str] | None = None

    @property
    def failed(self) -> bool:
        """Whether a step has failed."""
        return any(step.outcome == FAILED for step in self.steps)

    def interrupt(self) -> None:
        """Give up the step under way; of what follows only the canary's end is done."""
        self.interrupted = True
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Do all steps. Nothing of it is left in this process, however they end."""
        try:
            for name in STEPS:
                ends = name in ("stop", "nothing left")
                if (self.failed or self.interrupted) and not (ends and self.canary.was_asked_for):
                    self._ended(Step(name, SKIPPED))
                else:
                    patience = PATIENCE if name in PATIENT else 0.0
                    self._ended(await self._do(name, max(self._timeout, patience)))
        finally:
            self.under_way = None
            await self.canary.aclose()

    def hint(self, name: str) -> str:
        """Return what to look at while this step takes long; from any thread."""
        return "; ".join(filter(None, [self.canary.status, self._look_at(name)]))

    def _ended(self, step: Step) -> None:
        self.steps.append(step)
        self._tell(step)

    def _look_at(self, name: str) -> str:
        return look_at(name, self.canary.facts)

    async def _do(self, name: str, timeout: float) -> Step:
        self.under_way, self.began = name, time.monotonic()
        task = self._task = asyncio.ensure_future(self.canary.steps[name]())
        await asyncio.wait({task}, timeout=timeout)
        step = await self._outcome(name, task, timeout)
        self._task = None
        return step

    async def _outcome(self, name: str, task: asyncio.Task[str], timeout: float) -> Step:
        seconds = time.monotonic() - self.began
        if not task.done():
            status = self.canary.status
            step = await self._failure(
                name, seconds, f"not done in {timeout:g} s" + (f": {status}" if status else "")
            )
            task.cancel()
            await asyncio.wait({task})
            return step
        if task.cancelled():
            return Step(name, FAILED, seconds, "interrupted")
        error = task.exception()
        if error is None:
            return Step(name, OK, seconds, task.result())
        if isinstance(error, Skipped):
            return Step(name, SKIPPED, seconds, str(error))
        if isinstance(error, LaunchFailed):
            return await self._failure(name, seconds, error.reason, error.log)
        if isinstance(error, ElsewhereError):
            return await self._failure(name, seconds, str(error))
        fault = "".join(traceback.format_exception(error)).splitlines()
        finding = f"a fault in the backend or in elsewhere: {type(error).__name__}: {error}"
        return await self._failure(name, seconds, finding, fault)

    async def _failure(self, name: str, seconds: float, finding: str, log: Sequence[str] = ()) -> Step:
        lines = log or await self._log()
        return Step(name, FAILED, seconds, finding, self._look_at(name), tuple(lines[-LINES:]))

    async def _log(self) -> Sequence[str]:
        try:
            return await asyncio.wait_for(self.canary.log(LINES), LOG_TIMEOUT)
        except asyncio.TimeoutError:
            return ()
