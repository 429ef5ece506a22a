"""The front ends of one kernel, each with its mailbox, which outlive its launches."""

from __future__ import annotations

from collections.abc import Callable

from .line import Line
from .mailbox import Letter, Mailbox


class FrontEnds:
    """All belongs to the home's loop."""

    def __init__(self) -> None:
        self._mailboxes: dict[str, Mailbox] = {}
        self._line: Line | None = None

    async def open(
        self, name: str, deliver: Callable[[Letter], None], received: Callable[[int], int]
    ) -> Mailbox:
        """Have letters delivered to a front end, in place of an older mailbox of that name.

        ``received`` tells the last number that the front end has of a launch. The kernel need not have
        been launched yet.
        """
        self._close(name, for_good=False)
        launch = self._line.mark.launch if self._line is not None else 0
        box = Mailbox(name, deliver, launch, received(launch))
        self._mailboxes[name] = box
        if self._line is not None and not self._line.over:
            self._line.add_mailbox(box)
        return box

    def close(self, box: Mailbox, *, for_good: bool) -> None:
        """The front end has gone: its letters are kept for it by the agent, unless it is for good."""
        if self._mailboxes.get(box.name) is box:
            self._close(box.name, for_good=for_good)

    def move_to(self, line: Line) -> None:
        """The kernel has a new launch, whose line this is."""
        self._line = line
        for box in self._mailboxes.values():
            box.new_job(line.mark.launch)
            line.add_mailbox(box)

    def _close(self, name: str, *, for_good: bool) -> None:
        box = self._mailboxes.pop(name, None)
        if box is not None:
            if self._line is not None:
                self._line.remove_mailbox(box)
            box.close(for_good=for_good)
