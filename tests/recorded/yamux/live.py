"""Talks with Go's yamux through a pipe: ``python live.py PROGRAM client|server`` (our role)."""

import subprocess
import sys
from collections import Counter, deque
from io import BufferedReader
from typing import TypeVar, cast

from elsewhere.agent.yamux import Closed, Credit, Data, Event, GoneAway, Opened, Pong, Session

program, role = sys.argv[1:]
theirs = "server" if role == "client" else "client"
go = subprocess.Popen([program, "talk", theirs], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert go.stdin is not None
assert go.stdout is not None
to_go, from_go = go.stdin, cast(BufferedReader, go.stdout)
session = Session(client=role == "client", window=1 << 20, max_frame=100_000)

payload = bytes(range(256)) * 12_000
events: deque[Event] = deque()
seen: Counter[str] = Counter()
Kind = TypeVar("Kind", bound=Event)


def pump() -> None:
    """Write what is queued, read what came; credit is given for all data at once."""
    for buffer in session.outgoing():
        to_go.write(buffer)
    to_go.flush()
    data = from_go.read1(70_001)
    assert data, "Go ended the connection too early"
    for event in session.receive(data):
        seen[type(event).__name__] += 1
        if isinstance(event, Data):
            session.consumed(event.stream_id, len(event.data))
        events.append(event)


def until(kind: type[Kind], stream_id: int | None = None) -> tuple[Kind, bytes]:
    """Return the first event of this kind, and the data that comes before it."""
    data: list[bytes] = []
    while True:
        while not events:
            pump()
        event = events.popleft()
        if isinstance(event, kind) and stream_id in (None, event[0]):
            return event, b"".join(data)
        if isinstance(event, Data) and stream_id in (None, event.stream_id):
            data.append(event.data)


opened, _ = until(Opened)
size, text = 0, b""
while size < 5_000_000:
    size += len(until(Data, opened.stream_id)[0].data)
session.send(opened.stream_id, str(size).encode())
assert not until(Closed, opened.stream_id)[1]
session.close(opened.stream_id)

echo = session.open(window=2 << 20)
back: list[bytes] = []
sent = acknowledged = 0
while sent < len(payload):
    sent += session.send(echo, memoryview(payload)[sent:])
    pump()
    while events:
        event = events.popleft()
        if isinstance(event, Data):
            back.append(event.data)
        elif isinstance(event, Credit):
            acknowledged += event.delta
session.close(echo)
rest = until(Closed, echo)[1]
assert b"".join([*back, rest]) == payload
assert 0 < acknowledged <= len(payload)

doomed = session.open()
session.send(doomed, b"not for long")
session.reset(doomed)
value = session.ping()
assert until(Pong)[0] == Pong(value)
until(GoneAway)
session.go_away(0)
for buffer in session.outgoing():
    to_go.write(buffer)
to_go.flush()
while data := from_go.read1(65536):
    session.receive(data)
assert go.wait(10) == 0
print(role, "went well:", dict(seen))
