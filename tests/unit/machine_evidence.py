"""What a roster was told, written down beside it: an oracle for what it may believe.

It knows nothing of the roster's own reckoning. It reads the manager's answers as the design does: a
sighting is believed at once, silence proves nothing, absence takes a settling time and two complete
answers in a row. Where time decides by less than one question, it rules for the roster.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

from elsewhere.backend import JobId, Mark, Observation, Parcel, Phase
from elsewhere.testing.memory import MemoryBackend, MemoryConfig, MemoryJob, MemoryManager, MemoryRequest


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Absence:
    """Since when, and in how many complete answers, something has not been shown; ``believed`` for good."""

    since: float
    misses: int = 0
    believed: bool = False

    def restart(self) -> None:
        self.since, self.misses = now(), 0

    def missed(self, asked: float, settle: float) -> None:
        if asked >= self.since:
            self.misses += 1
            self.believed |= self.misses >= 2 and asked - self.since >= settle


@dataclass
class Word:
    """The last that was said of one job."""

    phase: Phase
    absence: Absence


@dataclass
class Known:
    """What was said of the jobs of one launch."""

    unseen: Absence
    words: dict[JobId, Word] = field(default_factory=dict)
    submitting: bool = False

    def absences(self) -> Iterator[Absence]:
        yield self.unseen
        for word in self.words.values():
            yield word.absence


class Evidence:
    """All that one roster was told. ``settle``: its own."""

    def __init__(self, settle: float) -> None:
        self.settle = settle
        self.silent = False
        self._known: defaultdict[tuple[str, int], Known] = defaultdict(lambda: Known(Absence(now())))

    def of(self, mark: Mark) -> Known:
        return self._known[mark.kernel_id, mark.launch]

    def link_changed(self, mark: Mark) -> None:
        """Absence counts anew from here."""
        for absence in self.of(mark).absences():
            absence.restart()

    def told(self, observation: Observation, asked: float) -> None:
        """Write down an answer. The first one after silence tells of no absence."""
        first_after_silence, self.silent = self.silent, False
        if first_after_silence:
            for known in self._known.values():
                for absence in known.absences():
                    absence.restart()
        seen = set()
        for sighting in observation.sightings:
            seen.add(sighting.job_id)
            known = self._known[sighting.kernel_id, sighting.launch]
            known.words[sighting.job_id] = Word(sighting.phase, Absence(now()))
        if observation.complete and not first_after_silence:
            for known in self._known.values():
                for job_id, word in known.words.items():
                    if job_id not in seen:
                        word.absence.missed(asked, self.settle)
                if not seen.intersection(known.words):
                    known.unseen.missed(asked, self.settle)

    def believed_over(self, job: MemoryJob) -> bool:
        """Whether a roster that was told this may believe that the job has ended."""
        known = self.of(job.mark)
        if word := known.words.get(job.job_id):
            return self._over(word)
        if known.words:  # of one that was never shown it knows only through the others
            return all(self._over(other) for other in known.words.values())
        return not known.submitting and known.unseen.believed

    def _over(self, word: Word) -> bool:
        return word.phase is Phase.ENDED or word.absence.believed


class WitnessedBackend(MemoryBackend):
    """The backend of a manager in memory, whose every answer is written down."""

    def __init__(
        self,
        home_id: str,
        config: MemoryConfig,
        manager: MemoryManager,
        evidence: Evidence,
        before_submit: Callable[[Mark], None],
    ) -> None:
        super().__init__(home_id, config, manager)
        self.evidence = evidence
        self._before_submit = before_submit

    async def submit(self, request: MemoryRequest, parcel: Parcel) -> JobId | None:
        self._before_submit(request.mark)
        known = self.evidence.of(request.mark)
        known.submitting = True
        try:
            job_id = await super().submit(request, parcel)
            if job_id is not None:
                known.words.setdefault(job_id, Word(Phase.QUEUED, Absence(now())))
            return job_id
        finally:
            known.submitting = False
            known.unseen = Absence(now())

    async def survey(self) -> Observation:
        asked = now()
        try:
            observation = await super().survey()
        except Exception:
            self.evidence.silent = True
            raise
        self.evidence.told(observation, asked)
        return observation

    async def watch(self) -> AsyncGenerator[Observation]:
        try:
            async with aclosing(super().watch()) as observations:
                async for observation in observations:
                    if not observation.complete:
                        self.evidence.told(observation, now())
                    yield observation
        except Exception:
            self.evidence.silent = True
            raise
