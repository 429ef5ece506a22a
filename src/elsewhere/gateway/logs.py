"""How the lines of the gateway's log are written: with the kernel they concern, and without secrets."""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import MutableMapping
from typing import Any

from tornado.log import LogFormatter

from elsewhere.gateway.detail import moment, stamp

KERNEL_ID = "kernel_id"
"""The attribute of a log record that names the kernel it concerns (``extra``)."""

_KERNEL = re.compile(r"\bkernels?[/: ]+['\"]?(\w+-\w+-\w+-\w+-\w+)", re.IGNORECASE)
_SECRETS = re.compile(
    r"([?&][^=&\s'\"#]*(?:token|auth|key|code|state|xsrf)[^=&\s'\"#]*=)[^&\s'\"#]+"
    r"|(authorization['\"]?\s*[:=]\s*['\"]?\w+\s+)[^\s'\",]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Return the text without the values that a URL or a header carries to be let in."""
    return _SECRETS.sub(lambda found: (found[1] or found[2]) + "[secret]", text)


class KernelLog(logging.LoggerAdapter[Any]):
    """The log of one kernel. ``owner`` has its id, as soon as there is one, as ``kernel_id``."""

    def __init__(self, logger: Any, owner: Any) -> None:
        super().__init__(logger, {})
        self._owner = owner

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the kernel's id to the record."""
        extra = {KERNEL_ID: self._owner.kernel_id, **(kwargs.get("extra") or {})}
        return msg, {**kwargs, "extra": extra}


class TextLines(LogFormatter):
    """Lines for people: the id of the kernel follows a message that does not have it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one message, with the traceback that belongs to it."""
        message = _message(record)
        kernel_id = getattr(record, KERNEL_ID, None)
        if kernel_id and kernel_id not in message:
            message = f"{message} (kernel {kernel_id})"
        shown = copy.copy(record)
        shown.msg, shown.args = message, None
        return without_secrets(super().format(shown))


class JsonLines(logging.Formatter):
    """One JSON object a line, for machines."""

    def __init__(self, *unused: object, **more: object) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """Return one message as one line."""
        message = _message(record)
        line = {
            "time": stamp(moment(record.created)),
            "level": record.levelname,
            "logger": record.name,
            "message": without_secrets(message),
        }
        kernel_id = getattr(record, KERNEL_ID, None) or _named(message)
        if kernel_id:
            line[KERNEL_ID] = kernel_id
        if record.exc_info:
            line["exception"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(line)


def _named(message: str) -> str | None:
    found = _KERNEL.search(message)
    return found[1] if found is not None else None


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # whatever an argument's own text raises: the line shall be written
        return f"{record.msg!r} (its arguments do not fit)"
