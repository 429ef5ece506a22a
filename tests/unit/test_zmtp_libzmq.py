"""Our ZMTP with real ZeroMQ sockets at the other end, over unix sockets and TCP."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from elsewhere.agent.zmtp import (
    Batch,
    PublisherPeer,
    Subscriber,
    encode_message,
    frames,
    message_ends,
)

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]

TIMEOUT = 10


def payloads(batch: Batch | None) -> list[list[bytes]]:
    """Return the messages of a batch, each as its frames."""
    if batch is None:
        return []
    starts = [0, *batch.ends[:-1]]
    return [[bytes(f) for f in frames(batch.wire, a, b)] for a, b in zip(starts, batch.ends, strict=True)]


OPEN: list[socket.socket | Socket] = []
"""What the fixture ``context`` closes."""


@pytest.fixture
def context() -> Iterator[Context]:
    context = zmq.Context()
    context.setsockopt(zmq.RCVTIMEO, TIMEOUT * 1000)
    context.setsockopt(zmq.SNDTIMEO, TIMEOUT * 1000)
    context.setsockopt(zmq.LINGER, 0)
    yield context
    while OPEN:
        OPEN.pop().close()
    context.term()


def opened(context: Context, kind: int) -> Socket:
    """Return a ZeroMQ socket that drops nothing."""
    made = context.socket(kind)
    OPEN.append(made)
    made.setsockopt(zmq.SNDHWM, 0)
    made.setsockopt(zmq.RCVHWM, 0)
    return made


@pytest.fixture(params=["ipc", "tcp"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Client:
    """A Subscriber on a blocking socket."""

    def __init__(self, endpoint: str, *topics: bytes) -> None:
        if endpoint.startswith("ipc://"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(TIMEOUT)
            self.socket.connect(endpoint[6:])
        else:
            host, _, port = endpoint[6:].rpartition(":")
            self.socket = socket.create_connection((host, int(port)), TIMEOUT)
        OPEN.append(self.socket)
        self.peer = Subscriber(topics or (b"",))
        self.socket.sendall(self.peer.outgoing())

    def turn(self) -> Batch | None:
        data = self.socket.recv(65536)
        assert data, "the publisher hung up"
        batch = self.peer.receive(data)
        self.socket.sendall(self.peer.outgoing())
        return batch

    def messages(self, count: int) -> list[list[bytes]]:
        got: list[list[bytes]] = []
        while len(got) < count:
            got += payloads(self.turn())
        return got


class Server:
    """A PublisherPeer on a blocking socket."""

    def __init__(self, transport: str, directory: Path) -> None:
        if transport == "ipc":
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(directory / "s"))
            self.endpoint = f"ipc://{directory / 's'}"
        else:
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.endpoint = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        OPEN.append(self.listener)
        self.listener.settimeout(TIMEOUT)
        self.listener.listen()
        self.peer = PublisherPeer()

    def accept(self) -> None:
        self.socket, _ = self.listener.accept()
        OPEN.append(self.socket)
        self.socket.settimeout(TIMEOUT)
        self.socket.sendall(self.peer.outgoing())

    def turn(self) -> None:
        data = self.socket.recv(65536)
        assert data, "the subscriber hung up"
        self.peer.receive(data)
        self.socket.sendall(self.peer.outgoing())

    def until(self, *topics: bytes) -> None:
        while self.peer.topics != set(topics):
            self.turn()


def bound(context: Context, kind: int, transport: str, directory: Path) -> Socket:
    publisher = opened(context, kind)
    publisher.bind(f"ipc://{directory / 'p'}" if transport == "ipc" else "tcp://127.0.0.1:*")
    return publisher


def endpoint_of(bound_socket: Socket) -> str:
    where = bound_socket.last_endpoint
    assert isinstance(where, bytes)
    return where.decode()


def test_we_subscribe_to_xpub(context: Context, transport: str, tmp_path: Path) -> None:
    publisher = bound(context, zmq.XPUB, transport, tmp_path)
    client = Client(endpoint_of(publisher), b"kernel.", b"status")
    while not client.peer.ready:
        client.turn()
    assert {publisher.recv(), publisher.recv()} == {b"\x01kernel.", b"\x01status"}

    publisher.send_multipart([b"other", b"not for us"])
    publisher.send_multipart([b"kernel.1", b"", b"x" * 255, b"y" * 256])
    publisher.send(b"status")
    assert client.messages(2) == [[b"kernel.1", b"", b"x" * 255, b"y" * 256], [b"status"]]

    large = [b"status", bytes(range(256)) * 100_000, b"end"]
    publisher.send_multipart(large)
    assert client.messages(1) == [large]

    many = [[b"kernel.%d" % i, *[b"part %d" % i] * 6] for i in range(5000)]
    for message in many:
        publisher.send_multipart(message)
    assert client.messages(5000) == many


def test_we_subscribe_to_pub_and_answer_its_heartbeats(
    context: Context, transport: str, tmp_path: Path
) -> None:
    publisher = opened(context, zmq.PUB)
    publisher.setsockopt(zmq.HEARTBEAT_IVL, 5)
    publisher.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2000)
    publisher.bind(f"ipc://{tmp_path / 'p'}" if transport == "ipc" else "tcp://127.0.0.1:*")
    client = Client(endpoint_of(publisher))
    got: list[list[bytes]] = []
    while not client.peer.ready:
        client.turn()
    pongs = 0
    while pongs < 3:
        data = client.socket.recv(65536)
        got += payloads(client.peer.receive(data))
        answer = client.peer.outgoing()
        pongs += answer.count(b"\x04PONG")
        client.socket.sendall(answer)
    # It has read our subscription before it took our answer to a later ping.
    publisher.send_multipart([b"a", b"b" * 70_000])
    got += client.messages(1)
    assert got == [[b"a", b"b" * 70_000]]


@pytest.mark.parametrize("kind", [zmq.SUB, zmq.XSUB])
def test_we_publish_to_real_subscribers(context: Context, transport: str, tmp_path: Path, kind: int) -> None:
    server = Server(transport, tmp_path)
    subscriber = opened(context, kind)

    def change(wanted: bool, topic: bytes) -> None:
        if kind == zmq.XSUB:
            subscriber.send(bytes([wanted]) + topic)
        else:
            subscriber.setsockopt(zmq.SUBSCRIBE if wanted else zmq.UNSUBSCRIBE, topic)

    subscriber.connect(server.endpoint)
    server.accept()
    change(True, b"a.")
    server.until(b"a.")
    assert server.peer.ready
    change(True, b"")
    change(True, b"c" * 300)
    server.until(b"a.", b"", b"c" * 300)
    change(False, b"a.")
    change(False, b"c" * 300)
    server.until(b"")

    many = [[b"topic %d" % i, b"", b"z" * (i % 600)] for i in range(2000)]
    many.append([b"large", bytes(range(256)) * 50_000])
    for message in many[:-1]:
        server.socket.sendall(encode_message(message))
    assert [subscriber.recv_multipart() for _ in many[:-1]] == many[:-1]
    server.socket.sendall(encode_message(many[-1]))
    assert subscriber.recv_multipart() == many[-1]


def test_what_a_subscriber_takes_a_publisher_may_hand_on(context: Context, tmp_path: Path) -> None:
    publisher = bound(context, zmq.XPUB, "ipc", tmp_path)
    client = Client(endpoint_of(publisher))
    while not client.peer.ready:
        client.turn()
    publisher.recv()
    server = Server("ipc", tmp_path)
    subscriber = opened(context, zmq.SUB)
    subscriber.subscribe(b"")
    subscriber.connect(server.endpoint)
    server.accept()
    server.until(b"")

    sent = [[b"a", b"b" * 1000], [b""], [b"c"] * 7]
    for message in sent:
        publisher.send_multipart(message)
    received = 0
    while received < len(sent):
        batch = client.turn()
        if batch is not None:
            assert message_ends(batch.wire) == batch.ends
            server.socket.sendall(batch.wire)
            received += len(batch.ends)
    assert [subscriber.recv_multipart() for _ in sent] == sent
