"""The tree of errors.

ElsewhereError
├── BackendError           what a backend may raise, and nothing else
│   ├── Rejected           the manager said no; asking again is pointless
│   └── Unreachable        the manager did not answer; nothing else is known
├── SettingsError          a value that a person wrote is wrong; names the field and the near miss
├── LaunchFailed           a kernel did not come up; carries the step, the reason and the log's last lines
├── KernelGone             the kernel or its job is over, so the thing asked for cannot be done
└── CoreClosed             asked of a core that has been shut down
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class ElsewhereError(Exception):
    """Every error that this package raises on purpose."""


class BackendError(ElsewhereError):
    """What a backend may raise: one of its two subclasses."""


class Rejected(BackendError):
    """The manager said no, in its own words; asking the same again is pointless."""


class Unreachable(BackendError):
    """The manager did not answer; whether it did what was asked is not known."""


class SettingsError(ElsewhereError):
    """A value that a person wrote is wrong."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem


class LaunchFailed(ElsewhereError):
    """A kernel did not come up.

    ``step`` is the step that failed (``submit``, ``queue``, ``agent``, ``exec``, ``kernel``), ``reason`` one
    sentence, ``log`` the last lines that the job printed, oldest first.
    """

    def __init__(self, step: str, reason: str, log: Sequence[str] = ()) -> None:
        self.step = step
        self.reason = reason
        self.log = tuple(log)
        super().__init__(step, reason, self.log)

    def __str__(self) -> str:
        lines = [f"the kernel did not start ({self.step}): {self.reason}"]
        if self.log:
            lines += ["last lines of its log:", *(f"  {line}" for line in self.log)]
        return "\n".join(lines)


class NeverSubmitted(ElsewhereError):
    """A launch of which no job was ever seen: home died before it was submitted."""


class KernelGone(ElsewhereError):
    """The kernel or its job is over, so what was asked of it cannot be done."""


class CoreClosed(ElsewhereError):
    """The core of this process has been shut down; nothing can be launched any more."""


def near_miss(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean `x`?)"`` for the closest of the known words, or a list of them."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f" (did you mean `{close[0]}`?)"
    return f" (known: {', '.join(words)})" if words else ""
