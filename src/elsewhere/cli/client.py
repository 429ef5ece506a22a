"""A gateway as the command line sees it: found, asked, and told of in plain sentences when it is silent."""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_runtime_dir

from elsewhere.errors import ElsewhereError

TIMEOUT = 60.0
"""Seconds: the gateway answers at once, but ending a kernel takes as long as its job needs."""
EVENTS_TIMEOUT = 45.0
"""Seconds of silence, three times the heartbeat of an event stream, after which the gateway is gone."""


class GatewayUnusable(ElsewhereError):
    """No gateway was found, or it did not do what was asked; says what to do next."""


class NotThere(GatewayUnusable):
    """The gateway knows no such kernel."""


@dataclass(frozen=True)
class Target:
    """Where a gateway is. ``origin`` is where we know it from."""

    url: str
    token: str
    origin: str


def find(url: str | None, token: str | None) -> Target:
    """Return the gateway that is named, else the one that runs here as this user.

    Raises GatewayUnusable if there is none, or more than one.
    """
    if url:
        return Target(_checked(url), token or "", "--url")
    running = _running()
    if not running:
        raise GatewayUnusable(
            "no gateway of yours runs on this machine; start one with `elsewhere serve`, or name one: "
            "--url URL --token TOKEN"
        )
    if len(running) > 1:
        urls = ", ".join(one.url for one in running)
        raise GatewayUnusable(f"several gateways of yours run on this machine: {urls}; choose one with --url")
    found = running[0]
    return Target(found.url, token or found.token, found.origin)


def _checked(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port  # is a number, and small enough
    except ValueError as error:
        raise GatewayUnusable(f"{url!r} is no URL of a gateway: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise GatewayUnusable(f"{url!r} is no URL of a gateway; it begins with http:// or https://")
    if parts.query or parts.fragment:
        raise GatewayUnusable(
            f"{url!r} is no URL of a gateway; leave out what follows its path, and say --token"
        )
    return url.rstrip("/")


@dataclass(frozen=True)
class Started:
    """A gateway that was started here as this user, as it told at its start; it may be over."""

    pid: int
    url: str
    token: str
    data_directory: Path
    file: Path


def started() -> Iterator[Started]:
    """Yield the gateways that were started here, each by its file, which one that was killed leaves."""
    for path in sorted(Path(jupyter_runtime_dir()).glob("jpserver-*.json")):
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
            if "elsewhere" in info:
                directory = Path(str(info["data_directory"]))
                yield Started(int(info["pid"]), str(info["url"]), str(info["token"]), directory, path)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a file of another server, or one that is being written


def _running() -> list[Target]:
    return [Target(one.url.rstrip("/"), one.token, str(one.file)) for one in started() if _lives(one.pid)]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _checked_token(target: Target) -> str:
    if not target.token.isascii() or not target.token.isprintable():
        raise GatewayUnusable(f"the token from {target.origin} has characters that no token has")
    return target.token


def _tls(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise GatewayUnusable(f"--ca {ca}: holds no certificate that can be read: {error}") from error


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    name: str
    data: Any


class Client:
    """Asks one gateway. All methods raise GatewayUnusable."""

    def __init__(self, target: Target, *, ca: str | None = None) -> None:
        self.target = target
        self.tls = _tls(ca) if target.url.startswith("https") else None

    def ask(self, method: str, *path: str, body: object = None, **query: str) -> Any:
        """Return the JSON of the answer, or None if it has no body."""
        with self._opened(method, path, query, TIMEOUT, body) as answer:
            content = answer.read()
        return self._parsed(content) if content else None

    def kernel_ids(self) -> list[str]:
        """Return the ids of all its kernels."""
        kernels = self.ask("GET", "api", "kernels")
        if not isinstance(kernels, list) or not all(isinstance(one, dict) and "id" in one for one in kernels):
            raise self._not_a_gateway()
        return [str(one["id"]) for one in kernels]

    def events(self, *path: str) -> Iterator[Event]:
        """Yield the events of a stream until it ends."""
        name, data = "message", ""
        with self._opened("GET", path, {}, EVENTS_TIMEOUT) as answer:
            for raw in answer:
                line = raw.decode().rstrip("\r\n")
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if field == "event":
                    name = value
                elif field == "data":
                    data += value
                elif not line and data:
                    yield Event(name, self._parsed(data))
                    name, data = "message", ""

    @contextmanager
    def _opened(
        self, method: str, path: Sequence[str], query: dict[str, str], timeout: float, body: object = None
    ) -> Iterator[HTTPResponse]:
        quoted = "/".join(urllib.parse.quote(part, safe="") for part in path)
        url = f"{self.target.url}/{quoted}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, method=method)  # noqa: S310 - the scheme was checked
        request.add_header("Content-Type", "application/json")
        if self.target.token:
            request.add_header("Authorization", f"token {_checked_token(self.target)}")
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=self.tls) as answer:  # noqa: S310
                yield answer
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise GatewayUnusable(f"the gateway at {self.target.url} does not answer: {reason}") from error

    def _refusal(self, error: urllib.error.HTTPError) -> GatewayUnusable:
        if error.code in (401, 403):
            return GatewayUnusable(
                f"the gateway at {self.target.url} does not take the token from {self.target.origin}; "
                "it is in the file `token` of the gateway's data directory"
                if self.target.token
                else f"the gateway at {self.target.url} wants a token: say --token, or set ELSEWHERE_TOKEN"
            )
        try:
            said = json.loads(error.read())
            told = str(said.get("message") or said.get("reason") or error.reason)
        except (ValueError, AttributeError):
            if error.code == 404:
                return self._not_a_gateway()
            told = str(error.reason)
        return NotThere(told) if error.code == 404 else GatewayUnusable(told)

    def _parsed(self, content: bytes | str) -> Any:
        try:
            return json.loads(content)
        except ValueError as error:
            raise self._not_a_gateway() from error

    def _not_a_gateway(self) -> GatewayUnusable:
        return GatewayUnusable(f"what answers at {self.target.url} is no gateway of elsewhere")
