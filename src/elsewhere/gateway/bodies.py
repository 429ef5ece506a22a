"""The bodies of requests: what they may hold, and plain sentences about what they may not.

Stock clients send more than is asked for, so an unknown field is ignored, unless it is the near miss of one
that is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from tornado.web import HTTPError

from elsewhere.errors import SettingsError, near_miss
from elsewhere.validation import Place, Problems

DEEPEST = 50
LONGEST_VALUE = 128 * 1024 - 1
"""Bytes of one variable, with its name, that Linux gives to a program (MAX_ARG_STRLEN)."""
LONGEST_ENVIRONMENT = 1024 * 1024
PASSED = "KERNEL_"
"""What the names of variables begin with that reach the kernel; others are ignored."""

_SENT_BY_STOCK_CLIENTS = frozenset(["id", "kernel_name", "kernel", "notebook", "type", "cwd", "user"])
_KERNEL_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _inside(path: str) -> str:
    if ".." in path.split("/"):
        raise ValueError("must not lead out of its directory by `..`")
    return path


def _unique(kernel_id: str) -> str:
    if not _KERNEL_ID.fullmatch(kernel_id):
        raise ValueError("must be a UUID in lower case, as in 1b4e28ba-2fa1-41d2-883f-0016d3cca427")
    return kernel_id


def _variables(env: dict[str, str]) -> dict[str, str]:
    passed = {name: value for name, value in env.items() if name.startswith(PASSED)}
    for name, value in passed.items():
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name[:80]!r} cannot be the name of a variable")
        if len(f"{name}={value}".encode()) > LONGEST_VALUE:
            raise ValueError(
                f"{name[:80]} has more than the {LONGEST_VALUE} bytes that a program can be given"
            )
    if sum(len(name) + len(value) for name, value in passed.items()) > LONGEST_ENVIRONMENT:
        raise ValueError(f"has more than {LONGEST_ENVIRONMENT} characters in all")
    return env


Name = Annotated[str, Field(max_length=255)]
Path = Annotated[str, Field(max_length=4096), AfterValidator(_inside)]
KernelId = Annotated[str, AfterValidator(_unique)]


class Body(BaseModel):
    """What a request may hold. Null is as good as nothing, as with the stock server."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Start(Body):
    """``POST /api/kernels``."""

    name: Name | None = None
    path: Path | None = None
    kernel_id: KernelId | None = None
    env: Annotated[dict[str, str], AfterValidator(_variables)] | None = None

    @property
    def passed(self) -> dict[str, str]:
        """The variables that reach the kernel."""
        return {name: value for name, value in (self.env or {}).items() if name.startswith(PASSED)}


class Sharing(Body):
    """``PUT /api/kernels/{id}/shares/{user}``."""

    read_only: bool = False


class SessionKernel(Body):
    """The kernel of a session: one that is there, or one to be started."""

    id: KernelId | None = None
    name: Name | None = None


class Notebook(Body):
    """What sessions were called once."""

    path: Path | None = None
    name: Path | None = None


class NewSession(Body):
    """``POST /api/sessions``; which of its fields must be there, the stock handler says."""

    path: Path = ""
    name: Path | None = None
    type: Name = ""
    kernel: SessionKernel = SessionKernel()
    notebook: Notebook = Notebook()


class SessionChange(Body):
    """``PATCH /api/sessions/{id}``."""

    path: Path = ""
    name: Path | None = None
    type: Name = ""
    kernel: SessionKernel = SessionKernel()
    notebook: Notebook = Notebook()


class Person(Body):
    """``PATCH /api/me``: what it says is kept in a cookie, which comes back with each request."""

    name: Name | None = None
    display_name: Name | None = None
    initials: Name | None = None
    avatar_url: Name | None = None
    color: Name | None = None


def read(body: bytes) -> dict[str, Any] | None:
    """Return a body's object, None if it is empty. Raises HTTPError 400.

    No text in it holds NUL or half of a character, so it can go where texts go: files, programs, databases.
    """
    if not body.strip():
        return None
    try:
        value = json.loads(body.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise HTTPError(400, "Invalid JSON in body of request") from error
    if not isinstance(value, dict):
        raise HTTPError(400, "the body must be a JSON object")
    for text in _texts(value):
        if "\0" in text:
            raise HTTPError(400, "the body holds a NUL character")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise HTTPError(400, "the body holds half of a surrogate pair") from error
    return value


def checked(model: type[BaseModel], body: Mapping[str, object]) -> None:
    """Raise HTTPError 400 with all that is wrong with a body."""
    problems, place = Problems(), Place("body")
    missing = [name for name in model.model_fields if name not in body]
    for key in body:
        miss = near_miss(key[:80], missing)
        if key not in model.model_fields and key not in _SENT_BY_STOCK_CLIENTS and "did you mean" in miss:
            problems.add(place / key[:80], f"unknown field{miss}")
    known = {name: body[name] for name in model.model_fields if name in body}
    problems.check(model, known, place)
    try:
        problems.complain()
    except SettingsError as error:
        raise HTTPError(400, str(error)) from error


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def _texts(value: object) -> Iterator[str]:
    waiting = [(value, 1)]
    while waiting:
        one, depth = waiting.pop()
        if depth > DEEPEST:
            raise HTTPError(400, f"the body is nested more than {DEEPEST} deep")
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            yield from one
            waiting += [(inner, depth + 1) for inner in one.values()]
        elif isinstance(one, list):
            waiting += [(inner, depth + 1) for inner in one]
