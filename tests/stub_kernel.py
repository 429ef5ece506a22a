"""A Jupyter kernel that is light: the whole messaging protocol, a tiny language, no ZeroMQ library.

Run as a program with a connection file. It is there in some tens of milliseconds and takes little memory,
so that hundreds of it can be run at once. What it executes is, line by line::

    print 3         three messages of text: 0, 1, 2
    echo TEXT       the text, on stdout
    warn TEXT       the text, on stderr
    show TEXT       the text, as a result
    sleep SECONDS   nothing, interruptibly
    ask PROMPT      what is answered
    set NAME TEXT   nothing; get NAME prints it; get asked the kinds of all requests so far
    exit CODE       it exits, without a word
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Generator
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src"))

from elsewhere.agent.zmtp import (
    Batch,
    Dealer,
    PublisherPeer,
    ZmtpError,
    encode_message,
    frames,
)

DELIMITER = b"<IDS|MSG>"
WORDS = ("print", "echo", "warn", "show", "sleep", "ask", "set", "get", "exit")

Object = dict[str, Any]
Steps = Generator[float | str, str, None]
"""An execution: it says how long it sleeps, or what it asks for and is then given."""


class Router(Dealer):
    """One connection to a ROUTER."""

    _type = b"ROUTER"
    _peers = (b"DEALER", b"REQ", b"ROUTER")  # type: ignore[assignment]


class Reply(Dealer):
    """One connection to a REP."""

    _type = b"REP"
    _peers = (b"REQ", b"DEALER")  # type: ignore[assignment]


class Interrupted(Exception):
    """The execution was interrupted."""


class Fault(Exception):
    """The code is wrong."""


class Peer:
    """One connection to one of the sockets."""

    def __init__(self, kernel: Kernel, channel: str, connection: socket.socket) -> None:
        self.channel = channel
        self.zmtp: Router | Reply | PublisherPeer
        if channel == "iopub":
            self.zmtp = PublisherPeer()
        else:
            self.zmtp = Reply(b"") if channel == "hb" else Router(b"")
        self._kernel = kernel
        self._socket = connection
        self._out = bytearray()
        connection.setblocking(False)
        kernel.selector.register(connection, selectors.EVENT_READ, self.turn)
        self.write(b"")

    def turn(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self.write(b"")
        if not events & selectors.EVENT_READ:
            return
        try:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError
            received = self.zmtp.receive(data)
        except BlockingIOError:
            return
        except (OSError, ZmtpError):
            self.close()
            return
        self.write(b"")
        if isinstance(received, Batch):
            start = 0
            for end in received.ends:
                self._kernel.take(self, [bytes(part) for part in frames(received.wire, start, end)])
                start = end

    def write(self, wire: bytes) -> None:
        self._out += self.zmtp.outgoing() + wire
        try:
            while self._out:
                del self._out[: self._socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        self._kernel.selector.modify(self._socket, wanted, self.turn)

    def close(self) -> None:
        if self in self._kernel.peers:
            self._kernel.peers.remove(self)
            self._kernel.selector.unregister(self._socket)
            self._socket.close()


class Kernel:
    """One thread, one loop. An execution that sleeps or asks leaves the loop to the other channels."""

    def __init__(self, connection: Object) -> None:
        self.selector = selectors.DefaultSelector()
        self.peers: list[Peer] = []
        self.session = os.urandom(16).hex()
        self.count = 0
        self.history: list[tuple[str, str]] = []
        self.memory: dict[str, str] = {}
        self.over = False
        self._key = connection["key"].encode()
        self._numbers = 0
        self._waiting: deque[tuple[Peer, list[bytes], Object, Object]] = deque()
        self._running: tuple[Steps, Peer, list[bytes], Object, Object] | None = None
        self._wakes_at: float | None = None
        self._printed: list[str] = []
        self._interrupted = False
        for channel in ("shell", "iopub", "stdin", "control", "hb"):
            self._listen(connection, channel)

    def _listen(self, connection: Object, channel: str) -> None:
        port = connection[f"{channel}_port"]
        if connection["transport"] == "ipc":
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(f"{connection['ip']}-{port}")
        else:
            listener = socket.create_server((connection["ip"], port))
        listener.listen()
        listener.setblocking(False)

        def accept(events: int) -> None:
            self.peers.append(Peer(self, channel, listener.accept()[0]))

        self.selector.register(listener, selectors.EVENT_READ, accept)

    def run(self) -> None:
        """Serve until told to shut down, then give everybody what there is for them."""
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        signal.signal(signal.SIGINT, lambda *args: self.interrupt())
        self.selector.register(mine, selectors.EVENT_READ, lambda events: mine.recv(100))
        while not self.over or any(peer._out for peer in self.peers):
            timeout = None if self._wakes_at is None else max(0.0, self._wakes_at - time.monotonic())
            for key, events in self.selector.select(timeout):
                key.data(events)
            if self._interrupted or (self._wakes_at is not None and time.monotonic() >= self._wakes_at):
                self._go_on("")
            while self._waiting and self._running is None:
                self._handle(*self._waiting.popleft())

    def interrupt(self) -> None:
        self._interrupted = self._running is not None

    # ---- messages

    def take(self, peer: Peer, parts: list[bytes]) -> None:
        """A whole message has come."""
        if peer.channel == "hb":
            peer.write(encode_message(parts))
            return
        try:
            at = parts.index(DELIMITER)
            who, signature, body = parts[:at], parts[at + 1], parts[at + 2 : at + 6]
            if self._sign(body) != signature or len(body) < 4:
                return
            header, content = json.loads(body[0]), json.loads(body[3])
            kind = header["msg_type"]
        except (ValueError, IndexError, KeyError, TypeError):
            return
        if not isinstance(content, dict) or not isinstance(kind, str):
            return
        if kind == "input_reply":
            self._go_on(str(content.get("value", "")))
        elif peer.channel == "control":
            self._handle(peer, who, header, content)
        else:
            self._waiting.append((peer, who, header, content))

    def _sign(self, body: list[bytes]) -> bytes:
        if not self._key:
            return b""
        return hmac.new(self._key, b"".join(body), hashlib.sha256).hexdigest().encode()

    def _pack(self, prefix: list[bytes], kind: str, content: Object, parent: Object) -> bytes:
        self._numbers += 1
        header = {
            "msg_id": f"{self.session}_{self._numbers}",
            "msg_type": kind,
            "session": self.session,
            "username": "stub",
            "date": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
            "version": "5.3",
        }
        body = [json.dumps(one).encode() for one in (header, parent, {}, content)]
        return encode_message([*prefix, DELIMITER, self._sign(body), *body])

    def publish(self, kind: str, content: Object, parent: Object) -> None:
        """Give it to every subscriber."""
        topic = kind.encode()
        wire = self._pack([topic], kind, content, parent)
        for peer in list(self.peers):
            zmtp = peer.zmtp
            if isinstance(zmtp, PublisherPeer) and any(topic.startswith(one) for one in zmtp.topics):
                peer.write(wire)

    def _status(self, state: str, parent: Object) -> None:
        self.publish("status", {"execution_state": state}, parent)

    # ---- requests

    def _handle(self, peer: Peer, who: list[bytes], header: Object, content: Object) -> None:
        kind = header["msg_type"]
        self.memory["asked"] = f"{self.memory.get('asked', '')}{kind} "
        self._status("busy", header)
        if kind == "execute_request":
            self._execute(peer, who, header, content)
            return
        try:
            answer = self._answer(kind, content)
        except (KeyError, TypeError, AttributeError) as error:
            answer = {"status": "error", "ename": "BadRequest", "evalue": str(error), "traceback": []}
        if answer is not None:
            reply = self._pack(who, kind.replace("request", "reply"), {"status": "ok", **answer}, header)
            peer.write(reply)
        self._status("idle", header)
        if kind == "interrupt_request":
            self.interrupt()
        elif kind == "shutdown_request":
            self.over = True

    def _answer(self, kind: str, content: Object) -> Object | None:
        if kind == "kernel_info_request":
            language = {"name": "stub", "version": "1", "mimetype": "text/plain", "file_extension": ".stub"}
            return {
                "protocol_version": "5.3",
                "implementation": "stub",
                "implementation_version": "1",
                "language_info": language,
                "banner": "a stub",
                "help_links": [],
            }
        if kind == "is_complete_request":
            return {"status": _completeness(content["code"])}
        if kind == "complete_request":
            cursor, word = content["cursor_pos"], content["code"][: content["cursor_pos"]]
            matches = [one for one in WORDS if one.startswith(word)]
            return {"matches": matches, "cursor_start": 0, "cursor_end": cursor, "metadata": {}}
        if kind == "inspect_request":
            found = content["code"].strip() in WORDS
            data = {"text/plain": f"{content['code'].strip()}: see the module"} if found else {}
            return {"found": found, "data": data, "metadata": {}}
        if kind == "history_request":
            last = self.history[-content.get("n", 10) :]
            begin = len(self.history) - len(last) + 1
            with_output = content["output"]
            history = [
                (1, number, (code, out) if with_output else code)
                for number, (code, out) in enumerate(last, begin)
            ]
            return {"history": history}
        if kind == "shutdown_request":
            return {"restart": content.get("restart", False)}
        return {"comm_info_request": {"comms": {}}, "interrupt_request": {}}.get(kind)

    # ---- execution

    def _execute(self, peer: Peer, who: list[bytes], header: Object, content: Object) -> None:
        code = str(content.get("code", ""))
        if not content.get("silent"):
            self.count += 1
            self.publish("execute_input", {"code": code, "execution_count": self.count}, header)
        self._printed = []
        self._running = (self._steps(code, header), peer, who, header, content)
        self._go_on(None)

    def _go_on(self, given: str | None) -> None:
        """Go on with the execution until it sleeps, asks, or is over."""
        if self._running is None:
            return
        steps, peer, who, header, content = self._running
        self._wakes_at = None
        reply: Object = {"status": "ok", "payload": [], "user_expressions": {}}
        try:
            if self._interrupted:
                self._interrupted = False
                steps.throw(Interrupted("interrupted"))
            wish = next(steps) if given is None else steps.send(given)
            if isinstance(wish, float):
                self._wakes_at = time.monotonic() + wish
            else:
                question = {"prompt": wish, "password": False}
                for one in self.peers:
                    if one.channel == "stdin" and one.zmtp.ready:
                        one.write(self._pack([], "input_request", question, header))
            return
        except StopIteration:
            pass
        except (Fault, Interrupted) as error:
            told = {"ename": type(error).__name__, "evalue": str(error), "traceback": [str(error)]}
            self.publish("error", told, header)
            reply = {"status": "error", **told}
        self._running = None
        if content.get("store_history", True) and not content.get("silent"):
            self.history.append((str(content.get("code", "")), "".join(self._printed)))
        peer.write(self._pack(who, "execute_reply", {"execution_count": self.count, **reply}, header))
        self._status("idle", header)

    def _steps(self, code: str, parent: Object) -> Steps:
        for line in code.splitlines():
            word, _, rest = line.strip().partition(" ")
            if word == "sleep":
                yield float(rest)
            elif word == "ask":
                self._print("stdout", (yield rest), parent)
            elif word == "print":
                for number in range(int(rest)):
                    self._print("stdout", f"{number}\n", parent)
            elif word in ("echo", "warn"):
                self._print("stdout" if word == "echo" else "stderr", rest, parent)
            elif word == "show":
                shown = {"data": {"text/plain": rest}, "metadata": {}, "execution_count": self.count}
                self.publish("execute_result", shown, parent)
            elif word == "set":
                name, _, self.memory[name] = rest.partition(" ")
            elif word == "get" and rest in self.memory:
                self._print("stdout", self.memory[rest], parent)
            elif word == "exit":
                os._exit(int(rest))
            elif word:
                raise Fault(f"cannot {line!r}")

    def _print(self, name: str, text: str, parent: Object) -> None:
        self._printed.append(text)
        self.publish("stream", {"name": name, "text": text}, parent)


def _completeness(code: str) -> str:
    words = [line.split()[0] for line in code.splitlines() if line.split()]
    if not all(word in WORDS for word in words):
        return "invalid"
    return "incomplete" if code.endswith("\\") else "complete"


if __name__ == "__main__":
    with open(sys.argv[-1], encoding="utf-8") as file:
        Kernel(json.load(file)).run()
