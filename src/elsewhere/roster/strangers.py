"""Jobs of this home that no entry stands for: orphans, and what comes back of what was released."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from elsewhere.backend import JobId, Sighting
from elsewhere.roster.reckoning import Instant, Job

Key = tuple[str, int]
"""A kernel id and a launch number: what a mark says within one home."""

REMEMBERED_AT_MOST = 1_000


class Strangers:
    """Which of them are unwanted: those of a launch that was released here, or older than one known
    here, at once; any other after ``grace``, or never if that is None.

    Only the last 1,000 released launches are kept in mind.
    """

    def __init__(self, grace: float | None) -> None:
        self.grace = grace
        self._jobs: dict[Key, dict[JobId, Job]] = {}
        self._released: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def saw(self, sighting: Sighting, now: Instant) -> None:
        """Take in a sighting of one."""
        jobs = self._jobs.setdefault((sighting.kernel_id, sighting.launch), {})
        jobs.setdefault(sighting.job_id, Job(sighting.job_id, now)).saw(sighting, now)

    def missed(self, seen: set[JobId], asked: Instant, settle: float) -> None:
        """Count a complete observation; who is believed absent is forgotten."""
        for key, jobs in list(self._jobs.items()):
            for job in list(jobs.values()):
                if job.job_id not in seen and job.missed(asked, settle):
                    del jobs[job.job_id]
            if not jobs:
                del self._jobs[key]

    def doubt(self, now: Instant) -> None:
        """Begin all reckoning of absence anew."""
        for _, job in self._all():
            job.doubt(now)

    def claim(self, key: Key) -> list[Job]:
        """Hand over the jobs of a launch that is wanted from now on."""
        self._released.pop(key, None)
        return list(self._jobs.pop(key, {}).values())

    def _all(self) -> list[tuple[Key, Job]]:
        return [(key, job) for key, jobs in self._jobs.items() for job in jobs.values()]

    def release(self, key: Key) -> None:
        """Keep in mind that a launch was ours, is gone, and is unwanted should it be seen again."""
        self._released[key] = None
        if len(self._released) > REMEMBERED_AT_MOST:
            self._released.popitem(last=False)

    def unwanted(self, newest: Mapping[str, int], now: float) -> Iterator[tuple[Job, bool]]:
        """Yield those to be ended, and whether what they leave is still to be discarded.

        ``newest``: the newest launch known, by kernel.
        """
        for key, job in self._all():
            if key in self._released or key[1] < newest.get(key[0], 0):
                yield job, key not in self._released
            elif self.grace is not None and now - job.first_seen >= self.grace:
                yield job, True

    def matter(self, newest: Mapping[str, int], now: float) -> bool:
        """Whether there is one that lives and is to be ended, now or after the grace."""
        if self.grace is not None:
            return any(job.live for _, job in self._all())
        return any(job.live for job, _ in self.unwanted(newest, now))
