"""How far each front end has come, kept so that not even the death of this process forgets it.

A table in a file that is mapped into memory: the system keeps what was stored there, whenever the
process is killed. Before a message is given to a front end's socket ``intended`` is stored, and
``done`` once the system has taken all of it. Only a message between the two may arrive a second time.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple

_HEADER = b"elsewhere marks 1".ljust(64, b"\0")
_SLOT = struct.Struct("<16s16sQQQ8x")
_NUMBER = struct.Struct("<Q")
_INTENDED, _DONE = 32, 40
_FIRST_SLOTS = 256
SESSIONS_OF_A_KERNEL = 64
"""Front ends of one kernel that are remembered; the oldest gives way to a new one."""


class _Key(NamedTuple):
    kernel: bytes
    session: bytes


class Marks:
    """The table. One process at a time; ``close`` at the end. Raises OSError when it cannot be had."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = len(_HEADER) + _FIRST_SLOTS * _SLOT.size
        if os.pread(self._fd, len(_HEADER), 0) != _HEADER:
            os.ftruncate(self._fd, 0)
            os.ftruncate(self._fd, size)
            os.pwrite(self._fd, _HEADER, 0)
        self._map = mmap.mmap(self._fd, os.fstat(self._fd).st_size)
        self._slots: dict[_Key, int] = {}
        self._of_kernel: dict[bytes, list[_Key]] = {}
        self._free: list[int] = []
        for offset in range(len(_HEADER), len(self._map), _SLOT.size):
            kernel, session, *_ = _SLOT.unpack_from(self._map, offset)
            if any(kernel):
                self._remember(_Key(kernel, session), offset)
            else:
                self._free.append(offset)
        for keys in self._of_kernel.values():
            keys.sort(key=lambda key: self._age(self._slots[key]))

    def of(self, kernel_id: str, launch: int, session: str) -> Mark:
        """Return the mark of one front end in one launch of a kernel; a new one begins at 0."""
        key = _Key(_digest(kernel_id), _digest(f"{launch} {session}"))
        if key not in self._slots:
            self._make_room_for(key.kernel)
            offset = self._take_slot()
            ages = [self._age(self._slots[other]) for other in self._of_kernel.get(key.kernel, ())]
            _SLOT.pack_into(self._map, offset, *key, 0, 0, max(ages, default=0) + 1)
            self._remember(key, offset)
        return Mark(self, key)

    def forget(self, kernel_id: str) -> None:
        """The kernel is over: so is all that its front ends had of it."""
        for key in self._of_kernel.pop(_digest(kernel_id), []):
            self._release(key)

    def close(self) -> None:
        """Close the file. May be called more than once."""
        if self._fd >= 0:
            self._map.close()
            os.close(self._fd)
            self._fd = -1

    def read(self, key: _Key, place: int) -> int:
        """Return a number of this front end, 0 once it is forgotten."""
        if self._fd < 0 or key not in self._slots:
            return 0
        number: int = _NUMBER.unpack_from(self._map, self._slots[key] + place)[0]
        return number

    def write(self, key: _Key, place: int, number: int) -> None:
        """Store a number of this front end, unless it is forgotten."""
        if self._fd >= 0 and key in self._slots:
            _NUMBER.pack_into(self._map, self._slots[key] + place, number)

    def _remember(self, key: _Key, offset: int) -> None:
        self._slots[key] = offset
        self._of_kernel.setdefault(key.kernel, []).append(key)

    def _age(self, offset: int) -> int:
        age: int = _SLOT.unpack_from(self._map, offset)[4]
        return age

    def _make_room_for(self, kernel: bytes) -> None:
        keys = self._of_kernel.get(kernel, [])
        while len(keys) >= SESSIONS_OF_A_KERNEL:
            self._release(keys.pop(0))

    def _release(self, key: _Key) -> None:
        offset = self._slots.pop(key)
        self._map[offset : offset + _SLOT.size] = bytes(_SLOT.size)
        self._free.append(offset)

    def _take_slot(self) -> int:
        if not self._free:
            size = len(self._map)
            self._map.resize(size + (size - len(_HEADER)))
            self._free.extend(range(size, len(self._map), _SLOT.size))
        return self._free.pop()


class Mark:
    """How far one front end has come: two numbers of messages."""

    def __init__(self, marks: Marks, key: _Key) -> None:
        self._marks = marks
        self._key = key

    @property
    def done(self) -> int:
        """The last message that the front end's socket has taken whole."""
        return self._marks.read(self._key, _DONE)

    @property
    def intended(self) -> int:
        """The last message that may have been given to it."""
        return self._marks.read(self._key, _INTENDED)

    def intend(self, number: int) -> None:
        """This message is about to be given to the socket."""
        self._marks.write(self._key, _INTENDED, number)

    def do(self, number: int) -> None:
        """The socket has taken it."""
        self._marks.write(self._key, _DONE, number)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
