"""A client of server-sent events, which knows nothing but the format of the HTML standard."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gateway_kit import Gateway
from site_kit import PATIENCE


class Events:
    """An open stream of events."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.answer = answer
        self.retry = 0

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each event's name and data, until the stream ends."""
        kind = data = ""
        while line := self.answer.readline().decode():
            field, _, value = line.rstrip("\n").partition(": ")
            if field == "event":
                kind = value
            elif field == "data":
                data += value
            elif field == "retry":
                self.retry = int(value)
            elif not field and kind:
                yield kind, json.loads(data)
                kind = data = ""

    def until(self, **wanted: object) -> list[dict[str, Any]]:
        """The details up to the first that has these values."""
        seen: list[dict[str, Any]] = []
        for kind, detail in self:
            assert kind == "kernel", f"it ended, with {seen}"
            seen.append(detail)
            if all(detail[name] == value for name, value in wanted.items()):
                return seen
        raise AssertionError(f"the stream ended, with {seen}")


@contextmanager
def events_of(gateway: Gateway, kernel_id: str, token: str | None = None) -> Iterator[Events]:
    """The events of one kernel."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE)
    token = gateway.token if token is None else token
    path = f"/api/kernels/{kernel_id}/events"
    connection.request("GET", path, headers={"Authorization": f"token {token}"})
    answer = connection.getresponse()
    try:
        yield Events(answer)
    finally:
        answer.close()
        connection.close()
