"""The people of a gateway and their tokens: one file, in which tokens are kept as hashes.

The command line writes it; a gateway reads it again when it has changed. Whoever has no valid token in it is
nobody, and so is everybody while it cannot be read.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from elsewhere.errors import ElsewhereError, near_miss
from elsewhere.gateway.accounts import Account, Role

FILE = "people.json"
_LOCK = "people.lock"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,63}")
_NOBODY = hashlib.sha256(b"").hexdigest()

logger = logging.getLogger(__name__)


def _named(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("has other characters than letters, digits and ._@+-, or more than 64")
    return name


Name = Annotated[str, AfterValidator(_named)]


class Token(BaseModel):
    """One token of a person, without what must be known to use it."""

    model_config = ConfigDict(frozen=True)

    id: str
    hash: str
    created: datetime
    expires: datetime | None = None

    @property
    def expired(self) -> bool:
        """Whether it is good no longer."""
        return self.expires is not None and self.expires <= datetime.now(timezone.utc)


class Person(BaseModel):
    """One of them."""

    model_config = ConfigDict(frozen=True)

    name: Name
    role: Role = Role.USER
    groups: tuple[Name, ...] = ()
    acts_for: tuple[str, ...] = ()
    tokens: tuple[Token, ...] = ()

    @property
    def account(self) -> Account:
        """What they are to the gateway."""
        return Account(self.name, self.role, self.groups, self.acts_for)


class _File(BaseModel):
    version: int = 1
    people: list[Person] = []


class People:
    """``find`` and ``of`` look at the file's time only, unless it has changed."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self._directory = directory
        self._seen: tuple[int, ...] | None = None
        self._by_name: dict[str, Person] = {}
        self._by_token: dict[str, tuple[Person, Token]] = {}

    # ---- what a gateway asks

    def find(self, text: str) -> Account | None:
        """Return whose token this is, None if it is nobody's or has expired."""
        self._look()
        token_id, _, secret = text.partition(".")
        person, token = self._by_token.get(token_id, (None, None))
        good = hmac.compare_digest(_hash(secret), token.hash if token is not None else _NOBODY)
        if person is None or token is None or not good or token.expired:
            return None
        return person.account

    def of(self, name: str) -> Account | None:
        """Return the account of this name, as long as one of its tokens is valid."""
        self._look()
        person = self._by_name.get(name)
        if person is None or all(token.expired for token in person.tokens):
            return None
        return person.account

    # ---- what the command line does

    def all(self) -> list[Person]:
        """Return everybody. Raises ElsewhereError for a file that is broken."""
        return sorted(self._read().people, key=lambda person: person.name)

    def add(
        self,
        name: str,
        *,
        role: Role | None = None,
        groups: tuple[str, ...] | None = None,
        acts_for: tuple[str, ...] | None = None,
        days: float | None = None,
    ) -> str:
        """Give a person a new token, and return it: it is kept nowhere. A new person is a user.

        What is None stays as it was. Raises ElsewhereError.
        """
        now = datetime.now(timezone.utc)
        token_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        expires = None if days is None else now + timedelta(days=days)
        token = Token(id=token_id, hash=_hash(secret), created=now, expires=expires)
        with self._changing() as file:
            others = [person for person in file.people if person.name != name]
            there = next((person for person in file.people if person.name == name), None)
            try:
                known = there if there is not None else Person(name=name)
                person = Person(
                    name=name,
                    role=known.role if role is None else role,
                    groups=known.groups if groups is None else groups,
                    acts_for=known.acts_for if acts_for is None else acts_for,
                    tokens=(*known.tokens, token),
                )
            except ValidationError as error:
                problem = error.errors()[0]
                why = problem["msg"].removeprefix("Value error, ")
                raise ElsewhereError(f"{problem['loc'][0]}: {problem['input']!r} {why}") from error
            if person.acts_for and person.role is not Role.SERVICE:
                raise ElsewhereError(f"{name} is no service: only a service acts for others (--role service)")
            file.people = [*others, person]
        return f"{token_id}.{secret}"

    def revoke(self, name: str, token_id: str | None = None) -> int:
        """Forget a person, or one of their tokens, and return how many tokens are good no longer.

        Raises ElsewhereError if there is no such person or token.
        """
        with self._changing() as file:
            names = [person.name for person in file.people]
            if name not in names:
                raise ElsewhereError(f"nobody is called {name!r}{near_miss(name, names)}")
            person = file.people.pop(names.index(name))
            gone = [token for token in person.tokens if token_id in (None, token.id)]
            if not gone:
                has = ", ".join(token.id for token in person.tokens)
                raise ElsewhereError(f"{name} has no token {token_id!r}, but {has}")
            kept = tuple(token for token in person.tokens if token not in gone)
            if kept:
                file.people.append(person.model_copy(update={"tokens": kept}))
        return len(gone)

    # ---- the file

    def _look(self) -> None:
        try:
            stat = self.path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except FileNotFoundError:
            seen = ()
        if seen == self._seen:
            return
        self._seen = seen
        self._by_name, self._by_token = {}, {}
        try:
            people = self._read().people
        except ElsewhereError as error:
            logger.error("nobody but the holder of the gateway's own token is let in: %s", error)
            return
        for person in people:
            self._by_name[person.name] = person
            self._by_token.update({token.id: (person, token) for token in person.tokens})

    def _read(self) -> _File:
        try:
            return _File.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return _File()
        except (OSError, ValidationError) as error:
            raise ElsewhereError(f"{self.path} cannot be read: {error}") from error

    @contextmanager
    def _changing(self) -> Iterator[_File]:
        """Read, change and write, one process at a time; a change that fails changes nothing."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            file = self._read()
            yield file
            new = self.path.with_suffix(".new")
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as out:
                out.write(file.model_dump_json(indent=1) + "\n")
                out.flush()
                os.fsync(out.fileno())
            new.replace(self.path)
        finally:
            os.close(lock)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
