"""What this gateway expects to go wrong is one sentence in the log, however stock code tells it."""

from __future__ import annotations

import logging

from elsewhere.errors import ElsewhereError

UNTRUE = (
    "Use Control-C to stop this server and shut down all kernels",
    # jupyter_server gives tornado, which counts in seconds, its milliseconds; it pings by itself.
    "The websocket_ping_timeout (",
)
"""How sentences of stock code begin that are not so here, and would only alarm."""


class Sentences(logging.Filter):
    """Takes the traceback from what an ElsewhereError says by itself; faults of ours keep theirs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass that is true."""
        if record.exc_info and isinstance(record.exc_info[1], ElsewhereError):
            record.exc_info = None
        return not str(record.msg).startswith(UNTRUE)
