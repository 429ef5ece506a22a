"""Numbered messages that nobody has acknowledged yet: in memory first, then on disk, to a limit.

The unit is a batch: some whole messages as they came from the kernel's socket. Batches keep their
order and are dropped once all their messages are acknowledged.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Deque, List, NamedTuple, Optional

SEGMENT = 16 * 1024 * 1024
JOINED = 64 * 1024
"""Bytes up to which batches on disk are made one: an entry in memory costs as much as a short message."""


class _Segment:
    """A part of the disk spool: a file that has no name any more, so nothing can be left behind."""

    def __init__(self, directory: str) -> None:
        path = os.path.join(directory, "spool-%s" % os.urandom(8).hex())
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)
        self.size = 0
        self.live = 0

    def append(self, data: bytes) -> int:
        offset, view = self.size, memoryview(data)
        while view:
            written = os.pwrite(self.fd, view, self.size)
            self.size += written
            view = view[written:]
        return offset

    def read(self, offset: int, length: int) -> bytes:
        parts = []
        while length:
            part = os.pread(self.fd, length, offset)
            if not part:
                raise OSError("the spool file is shorter than what was written to it")
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        os.close(self.fd)


EVERYBODY = ""
"""The addressee of what a kernel publishes."""


class _Entry(NamedTuple):
    first: int
    size: int
    length: int
    wire: Optional[bytes]
    segment: Optional[_Segment]
    offset: int
    channel: str
    addressee: str

    @property
    def last(self) -> int:
        return self.first + self.size - 1


class Batch(NamedTuple):
    """``size`` messages of one channel, numbered from ``first``, as the kernel sent them."""

    first: int
    size: int
    wire: bytes
    channel: str = "iopub"

    @property
    def last(self) -> int:
        """The number of its last message."""
        return self.first + self.size - 1


class Cursor:
    """One reader's place in a spool: it is handed what is addressed to it, and to everybody.

    ``done`` is the number up to which nothing is left to be handed out. ``close`` it at the end.
    """

    def __init__(self, spool: Spool, addressee: str = EVERYBODY) -> None:
        self.addressee = addressee
        self._spool = spool
        self._place = spool.begin
        spool.cursors.append(self)

    @property
    def place(self) -> int:
        """The index of the next entry, counted from the spool's first ever."""
        return max(self._place, self._spool.begin)

    @property
    def done(self) -> int:
        """The number of the last message before its place."""
        return self._spool.last_before(self.place)

    def take(self) -> Optional[Batch]:
        """Return the next batch that was not handed out since the last ``rewind``, or None."""
        while self.place < self._spool.end:
            place = self.place
            self._place = place + 1
            batch = self._spool.load(place, self.addressee)
            if batch is not None:
                return batch
        return None

    def take_following(self, batch: Batch) -> Optional[Batch]:
        """Return the next batch if it goes on where this one ends, on the same channel; else None."""
        if self.place >= self._spool.end:
            return None
        following = self._spool.load(self.place, self.addressee)
        if following is None or following.channel != batch.channel:
            return None
        self._place = self.place + 1
        return following

    def rewind(self, number: int) -> None:
        """Hand out again, from the first batch that is later than ``number``."""
        self._place = self._spool.place_after(number)

    def skip_to_end(self) -> int:
        """Hand out nothing of what is there; returns the number of its last message."""
        self._place = self._spool.end
        return self._spool.last

    def close(self) -> None:
        """It will take no more."""
        if self in self._spool.cursors:
            self._spool.cursors.remove(self)


class Spool:
    """Holds batches from ``add`` to ``acknowledge``. Limits are in bytes.

    Memory is used first; a batch that no longer fits there goes to an unnamed file in
    ``directory``, where it may be joined to the one before it. ``full`` says that both limits are
    reached; what is added all the same is kept. After ``disk_error`` the disk is used no more.
    """

    def __init__(self, directory: str, *, memory: int, disk: int) -> None:
        self._directory = directory
        self._memory_limit = memory
        self._disk_limit = disk
        self._entries: Deque[_Entry] = deque()
        self._segment: Optional[_Segment] = None
        self.begin = 0
        self.cursors: List[Cursor] = []
        self.in_memory = 0
        self.on_disk = 0
        self.last = 0
        self.disk_error = ""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def held(self) -> int:
        """Bytes not acknowledged."""
        return self.in_memory + self.on_disk

    def full(self, more: int = 0) -> bool:
        """Whether ``more`` bytes would go over the limits."""
        fits_memory = self.in_memory + more <= self._memory_limit
        return not fits_memory and (bool(self.disk_error) or self.on_disk + more > self._disk_limit)

    @property
    def end(self) -> int:
        """The place after the last entry; ``begin`` is that of the first."""
        return self.begin + len(self._entries)

    def add(self, wire: bytes, count: int, *, channel: str = "iopub", addressee: str = EVERYBODY) -> Batch:
        """Keep ``count`` messages under the next numbers; returns them as a batch."""
        batch = Batch(self.last + 1, count, wire, channel)
        self.last += count
        if self.in_memory + len(wire) > self._memory_limit and self._add_on_disk(batch, addressee):
            return batch
        self._entries.append(_Entry(batch.first, count, len(wire), wire, None, 0, channel, addressee))
        self.in_memory += len(wire)
        return batch

    def _add_on_disk(self, batch: Batch, addressee: str) -> bool:
        if self.disk_error:
            return False
        try:
            if self._segment is None or self._segment.size > SEGMENT:
                self._segment = _Segment(self._directory)
            offset = self._segment.append(batch.wire)
        except OSError as error:
            self.disk_error = "cannot spool output to %s: %s" % (self._directory, error.strerror or error)
            if self._segment is not None and not self._segment.live:
                self._segment.close()
            self._segment = None
            return False
        self.on_disk += len(batch.wire)
        entry = _Entry(
            batch.first,
            batch.size,
            len(batch.wire),
            None,
            self._segment,
            offset,
            batch.channel,
            addressee,
        )
        last = self._entries[-1] if self._entries and not self._handed_out_to_the_end() else None
        if last is not None and _joins(last, entry):
            self._entries[-1] = last._replace(size=last.size + entry.size, length=last.length + entry.length)
        else:
            self._segment.live += 1
            self._entries.append(entry)
        return True

    def _handed_out_to_the_end(self) -> bool:
        return any(cursor.place == self.end for cursor in self.cursors)

    def load(self, place: int, addressee: str) -> Optional[Batch]:
        """Return the batch at that place, or None if it is addressed to somebody else."""
        entry = self._entries[place - self.begin]
        if entry.addressee not in (EVERYBODY, addressee):
            return None
        wire = entry.wire
        if wire is None:
            assert entry.segment is not None
            wire = entry.segment.read(entry.offset, entry.length)
        return Batch(entry.first, entry.size, wire, entry.channel)

    def last_before(self, place: int) -> int:
        """Return the number of the last message before that place."""
        if place >= self.end:
            return self.last
        return self._entries[place - self.begin].first - 1

    def place_after(self, number: int) -> int:
        """Return the place of the first batch with a message later than ``number``."""
        place = self.begin
        for entry in self._entries:
            if entry.last > number:
                break
            place += 1
        return place

    def acknowledge(self, number: int) -> int:
        """Drop the batches whose messages are all numbered up to ``number``; returns how many."""
        dropped = 0
        while self._entries and self._entries[0].last <= number:
            entry = self._entries.popleft()
            dropped += 1
            self.begin += 1
            if entry.segment is None:
                self.in_memory -= entry.length
                continue
            self.on_disk -= entry.length
            entry.segment.live -= 1
            if not entry.segment.live:
                entry.segment.close()
                if entry.segment is self._segment:
                    self._segment = None
        return dropped

    def close(self) -> None:
        """Drop everything."""
        self.acknowledge(self.last)


def _joins(one: _Entry, following: _Entry) -> bool:
    return (
        one.segment is following.segment
        and (one.channel, one.addressee) == (following.channel, following.addressee)
        and one.length + following.length <= JOINED
    )
