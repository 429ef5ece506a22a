"""A mailbox for an agent of protocol 1, which has none: the line's publisher, and sockets through pipes.

Output is kept as such agents keep it. A reply that is on its way when home dies is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .agent.dealer import Dealers
from .agent.zmtp import message_ends
from .mailbox import Mailbox
from .publisher import Publisher, Tap


class PublishedMailbox:
    """The carrier of one mailbox. ``sockets``: where the line's local endpoints are, once ``let_in``."""

    def __init__(
        self,
        box: Mailbox,
        publisher: Publisher,
        sockets: Mapping[str, Any],
        let_in: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._box = box
        self._sockets = sockets
        self._dealers: Dealers | None = None
        self._tap: Tap | None = publisher.tap(self._heard)
        self._attaching = asyncio.ensure_future(self._attach(let_in))

    async def _attach(self, let_in: Callable[[], Awaitable[None]] | None) -> None:
        if let_in is not None:
            await let_in()
        self._box.attach(self, 0)

    def send(self, number: int, channel: str, wire: bytes) -> None:
        """Send a request; once it is in the socket it counts as done."""
        if self._dealers is not None and self._dealers.over:
            self._dealers.close()
            self._dealers = None
        if self._dealers is None:
            self._dealers = Dealers(dict(self._sockets), self._reply, lambda: None)
        self._dealers.send(channel, wire)
        self._box.confirm(number)

    def took(self, number: int) -> None:
        """The front end has all up to this number."""
        if self._tap is not None:
            self._tap.took(number)

    def flush_receipt(self) -> None:
        """The line's own stream does it."""

    def close(self, *, for_good: bool) -> None:
        """Its sockets are closed, and output is kept for it no more."""
        self._attaching.cancel()
        if self._dealers is not None:
            self._dealers.close()
        if self._tap is not None:
            self._tap.close()

    def _heard(self, last: int, wire: bytes) -> None:
        ends = message_ends(wire)
        self._box.heard("iopub", last - len(ends) + 1, ends, wire)

    def _reply(self, channel: str, wire: bytes, ends: list[int]) -> None:
        self._box.heard_unnumbered(channel, wire, ends)
