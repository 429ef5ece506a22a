"""What this gateway expects to go wrong is one sentence in the log, however stock code tells it."""

from __future__ import annotations

import logging

from elsewhere.errors import ElsewhereError


class Sentences(logging.Filter):
    """Takes the traceback from what an ElsewhereError says by itself; faults of ours keep theirs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        if record.exc_info and isinstance(record.exc_info[1], ElsewhereError):
            record.exc_info = None
        return True
