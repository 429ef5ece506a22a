"""The pure rules of the roster: what is believed of one job, from what was seen and what was not.

Nothing here asks a manager, waits or reads a clock: ``driver.py`` does, and tells.
"""

from __future__ import annotations

from typing import NamedTuple

from elsewhere.backend import JobId, Phase, Sighting

VANISHED = "the manager no longer knows the job"


class Instant(NamedTuple):
    """A moment: how many questions had been begun, and the loop's time."""

    turn: int
    at: float


class Absence:
    """How often in a row, and since when, something was not seen.

    Believed after two complete observations in a row, both asked for after ``since``, the later
    one at least the settling time after it. So neither an answer that was under way when the job was
    submitted counts, nor one that is faster than the manager's own lists.
    """

    def __init__(self, since: Instant) -> None:
        self.since = since
        self.misses = 0

    def restart(self, now: Instant) -> None:
        """Begin anew: it was seen, or the manager fell silent."""
        self.since = now
        self.misses = 0

    def missed(self, asked: Instant, settle: float) -> bool:
        """Count a complete observation without it; return whether absence is now believed."""
        if asked.turn <= self.since.turn:
            return False
        self.misses += 1
        return self.misses >= 2 and asked.at - self.since.at >= settle


class Job:
    """One job of this home, as far as it is known."""

    def __init__(self, job_id: JobId, now: Instant) -> None:
        self.job_id = job_id
        self.phase = Phase.QUEUED
        self.sighting: Sighting | None = None
        self.first_seen = now.at
        self.absence = Absence(now)
        self.vanished = False
        self.certain = False
        self.grace: float | None = None
        self.discarded = False
        self._cancel_due = now.at
        self._seen_since_cancel = True

    @property
    def live(self) -> bool:
        """Whether it has not been seen to end, nor been believed absent."""
        return self.phase is not Phase.ENDED

    def saw(self, sighting: Sighting, now: Instant) -> None:
        """Believe a sighting, at once."""
        self.sighting = sighting
        self.phase = sighting.phase
        self.vanished = False
        self.certain = True
        self.absence.restart(now)
        self._seen_since_cancel = True

    def missed(self, asked: Instant, settle: float) -> bool:
        """Count a complete observation without it; return whether it is now believed over."""
        self.certain = False
        if self.live and self.absence.missed(asked, settle):
            self.phase = Phase.ENDED
            self.vanished = True
        return not self.live

    def doubt(self, now: Instant) -> None:
        """Begin the reckoning of absence anew; what is known of it is worth a new question."""
        self.certain = False
        self.absence.restart(now)

    def outranked(self, now: Instant) -> None:
        """Take it as live although the manager said that it ended: its agent knows better."""
        if not self.live:
            self.phase = Phase.RUNNING
            self.doubt(now)

    def cancel_due(self, now: float) -> bool:
        """Whether, being unwanted, it is to be cancelled now (again: it was seen since)."""
        return self.live and self._seen_since_cancel and now >= self._cancel_due

    def cancelled(self, now: float, again: float) -> None:
        """Note that its end was asked for; asking again is due after ``again``, if it is still seen."""
        self._seen_since_cancel = False
        self._cancel_due = now + max(again, self.grace or 0.0)

    def cancel_from(self, at: float) -> None:
        """Have it cancelled from ``at`` on, whatever was asked before."""
        self._seen_since_cancel = True
        self._cancel_due = at

    def last_words(self) -> str:
        """Why it ended, as well as is known."""
        if self.vanished or self.sighting is None:
            return VANISHED
        if self.sighting.reason:
            return self.sighting.reason
        code = self.sighting.exit_code
        return "the job ended" if code is None else f"the job ended with exit code {code}"
