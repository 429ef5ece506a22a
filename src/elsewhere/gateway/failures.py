"""What the gateway says in the place of a kernel that does not answer, so that a notebook shows it."""

from __future__ import annotations

import json
from typing import Any

from jupyter_client.jsonutil import json_default
from jupyter_client.session import Session

from elsewhere.gateway.wire import Message


def status(state: str, session: Session) -> Message:
    """Return the status message with which Jupyter tells of a kernel's restart or death."""
    return _message("iopub", "status", {"execution_state": state}, session, {})


def answers(request: Message, reason: str, session: Session) -> list[Message]:
    """Return the answer to a request that no kernel will answer: the reason, as an error of its cell."""
    if request.kind != "execute_request":
        return []
    content = {"ename": "KernelDead", "evalue": reason.partition("\n")[0], "traceback": reason.splitlines()}
    reply = {"status": "error", "execution_count": 0, **content}
    told: list[tuple[str, str, dict[str, Any]]] = [
        ("iopub", "status", {"execution_state": "busy"}),
        ("iopub", "error", content),
        ("iopub", "status", {"execution_state": "idle"}),
        ("shell", "execute_reply", reply),
    ]
    return [_message(channel, kind, body, session, request.header) for channel, kind, body in told]


def _message(
    channel: str, kind: str, content: dict[str, Any], session: Session, parent: dict[str, Any]
) -> Message:
    header = session.msg_header(kind)
    parts: tuple[dict[str, Any], ...] = (header, parent, {}, content)
    packed = tuple(json.dumps(part, default=json_default).encode() for part in parts)
    return Message(channel, json.loads(packed[0]), packed)
