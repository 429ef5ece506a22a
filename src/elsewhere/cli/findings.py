"""What a survey found, job by job: ours, an older launch's, or nobody's. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elsewhere.backend import Sighting
from elsewhere.settings import Resolved

OURS, OLDER, ORPHAN, UNKNOWN, MISSING = KINDS = ("ours", "older launch", "orphan", "unknown", "missing")


@dataclass(frozen=True)
class Wanted:
    """A kernel of a ledger: the launch that is wanted of it (0: none yet), and its stanza."""

    launch: int
    stanza: Mapping[str, Any]


@dataclass(frozen=True)
class KnownHome:
    """A home, and what its ledger wants by kernel id; without a ledger (``where`` is None) nobody knows."""

    home_id: str
    where: Path | None = None
    kernels: Mapping[str, Wanted] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """A cluster to ask for a home's jobs; ``kernels`` are those that the home's ledger wants there."""

    home: KnownHome
    cluster: Resolved
    kernels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """What one manager said of one home's jobs; ``problem`` is why it said nothing."""

    question: Question
    sightings: Sequence[Sighting] = ()
    problem: str = ""

    @property
    def cluster(self) -> str:
        """The cluster's name."""
        return self.question.cluster.cluster


@dataclass(frozen=True)
class Row:
    """One job, or one launch that has none."""

    cluster: str
    home: str
    job_id: str | None
    kernel_id: str
    launch: int
    phase: str | None
    host: str | None
    kind: str
    reason: str | None
    exit_code: int | None = None


def judged(answer: Answer, after: KnownHome) -> Iterator[Row]:
    """Yield what there is on one cluster. ``after`` is its home as it was after the answer.

    What its ledger wanted before or after is ours: a kernel may have been launched or struck out meanwhile.
    """
    before = answer.question.home
    for one in answer.sightings:
        ended = f"exit code {one.exit_code}" if one.exit_code is not None else None
        yield Row(
            cluster=answer.cluster,
            home=before.home_id,
            job_id=one.job_id,
            kernel_id=one.kernel_id,
            launch=one.launch,
            phase=one.phase.value,
            host=one.host,
            kind=_kind(one, before, after),
            reason=one.reason or ended,
            exit_code=one.exit_code,
        )
    seen = {(one.kernel_id, one.launch) for one in answer.sightings}
    for kernel_id in answer.question.kernels if not answer.problem else ():
        launch = before.kernels[kernel_id].launch
        wanted = after.kernels.get(kernel_id)
        if wanted is not None and wanted.launch == launch and (kernel_id, launch) not in seen:
            why = "the manager shows no job of it" if launch else "it has not been launched yet"
            yield Row(answer.cluster, before.home_id, None, kernel_id, launch, None, None, MISSING, why)


def _kind(sighting: Sighting, *homes: KnownHome) -> str:
    if not any(home.where for home in homes):
        return UNKNOWN
    launches = [
        home.kernels[sighting.kernel_id].launch for home in homes if sighting.kernel_id in home.kernels
    ]
    if sighting.launch in launches:
        return OURS
    return OLDER if any(sighting.launch < launch for launch in launches) else ORPHAN
