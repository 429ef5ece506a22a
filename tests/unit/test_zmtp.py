"""Our ZMTP alone: what it says, what it refuses, and that it does not matter how bytes are cut."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.agent.zmtp import (
    Batch,
    PublisherPeer,
    Subscriber,
    ZmtpError,
    encode_message,
    frames,
    message_ends,
)

GREETING = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01NULL" + bytes(48)


def command(name: bytes, body: bytes = b"") -> bytes:
    content = bytes([len(name)]) + name + body
    if len(content) < 256:
        return bytes([4, len(content)]) + content
    return b"\x06" + struct.pack(">Q", len(content)) + content


def ready(socket_type: bytes) -> bytes:
    return command(b"READY", b"\x0bSocket-Type" + struct.pack(">I", len(socket_type)) + socket_type)


def payloads(batch: Batch | None) -> list[list[bytes]]:
    """Return the messages of a batch, each as its frames."""
    if batch is None:
        return []
    starts = [0, *batch.ends[:-1]]
    return [[bytes(f) for f in frames(batch.wire, a, b)] for a, b in zip(starts, batch.ends, strict=True)]


def joined(subscriber: Subscriber) -> Subscriber:
    assert subscriber.receive(GREETING + ready(b"PUB")) is None
    assert subscriber.ready
    subscriber.outgoing()
    return subscriber


def test_we_say_what_version_3_0_says() -> None:
    subscriber = Subscriber((b"topic",))
    greeting = subscriber.outgoing()
    assert len(greeting) == 64
    assert greeting[:12] == b"\xff" + bytes(8) + b"\x7f\x03\x00"
    subscriber.receive(GREETING)
    assert subscriber.outgoing() == command(
        b"READY", b"\x0bSocket-Type\0\0\0\x03SUB" + b"\x08Identity\0\0\0\0"
    )
    subscriber.receive(ready(b"XPUB"))
    assert subscriber.outgoing() == b"\x00\x06\x01topic"


@pytest.mark.parametrize("peer", [Subscriber, PublisherPeer])
@pytest.mark.parametrize(
    ("garbage", "words"),
    [
        (b"G", "not a peer"),
        (b"\xff" + bytes(9), "not a peer"),
        (GREETING[:10] + b"\x01", "older"),
        (GREETING.replace(b"NULL", b"PLAI"), "mechanism"),
        (GREETING + b"\x00", "did not begin"),
        (GREETING + b"\x08", "not a frame"),
        (GREETING + command(b"HELLO"), "did not begin"),
        (GREETING + command(b"ERROR", b"\x04busy"), "busy"),
        (GREETING + command(b""), "name"),
        (GREETING + b"\x06" + struct.pack(">Q", 1 << 30), "1073741824"),
        (GREETING + ready(b"DEALER"), "DEALER"),
        (GREETING + command(b"READY"), "does not go"),
        (GREETING + command(b"READY", b"\x0bSocket-Type\0\0\0\x09PUB"), "cut short"),
        (GREETING + command(b"READY", b"\x0bSock"), "cut short"),
    ],
)
def test_a_wrong_handshake_is_an_error(
    peer: type[Subscriber | PublisherPeer], garbage: bytes, words: str
) -> None:
    connection = peer()
    with pytest.raises(ZmtpError, match=words):
        connection.receive(garbage)
    with pytest.raises(ZmtpError, match=words):
        connection.receive(b"")
    assert not connection.ready


def test_a_subscriber_and_a_publisher_do_not_go_with_their_like() -> None:
    with pytest.raises(ZmtpError, match="SUB"):
        Subscriber().receive(GREETING + ready(b"SUB"))
    with pytest.raises(ZmtpError, match="PUB"):
        PublisherPeer().receive(GREETING + ready(b"XPUB"))


@pytest.mark.parametrize(
    ("garbage", "words"),
    [
        (b"\x08\x00", "not a frame"),
        (b"\x05\x01x", "not a frame"),
        (b"\x02" + struct.pack(">Q", 1 << 62), "more than 1000"),
        (b"\x03" + struct.pack(">Q", 992), "more than 1000"),
        (b"\x01\xff" + bytes(255) + b"\x02" + struct.pack(">Q", 735), "more than 1000"),
        (b"\x01\x00" * 501, "more than 1000"),
        (b"\x01\x00" * 500 + b"\x00\x00", "more than 1000"),
        (command(b"PING", b"\0"), "ping"),
        (command(b"PING", b"\0\0") * 2000, "too many"),
        (command(b"ERROR", b"\x03bye"), "bye"),
        (b"\x04\x00", "name"),
    ],
)
def test_what_the_protocol_or_the_limit_forbids_is_an_error(garbage: bytes, words: str) -> None:
    with pytest.raises(ZmtpError, match=words):
        joined(Subscriber(max_message=1000)).receive(garbage)
    subscriber = joined(Subscriber(max_message=1000))
    with pytest.raises(ZmtpError, match=words):
        trickle(subscriber, garbage)


def trickle(subscriber: Subscriber, wire: bytes) -> None:
    for i in range(len(wire)):
        assert len(subscriber._tail) < 1300
        subscriber.receive(wire[i : i + 1])


def test_a_message_as_large_as_the_limit_is_taken() -> None:
    wire = encode_message([bytes(489), bytes(493)])
    assert len(wire) == 1000
    assert joined(Subscriber(max_message=1000)).receive(wire) == Batch(wire, [1000])
    with pytest.raises(ZmtpError):
        joined(Subscriber(max_message=999)).receive(wire)


def test_commands_are_left_out_even_within_a_message() -> None:
    first, second = encode_message([b"a", b"b"]), encode_message([b"c"])
    ping = command(b"PING", b"\x00\x10word")
    subscriber = joined(Subscriber())
    batch = subscriber.receive(
        ping + first[:3] + ping + first[3:] + command(b"WHAT", bytes(300)) + second + b"\0"
    )
    assert batch == Batch(first + second, [len(first), len(first + second)])
    assert subscriber.outgoing() == command(b"PONG", b"word") * 2
    assert subscriber.receive(b"\0") == Batch(b"\0\0", [2])


def test_subscriptions_of_both_versions_are_understood() -> None:
    peer = PublisherPeer()
    assert not peer.receive(GREETING + ready(b"SUB"))
    assert peer.receive(b"\x00\x02\x01a" + command(b"SUBSCRIBE", b"b") + command(b"SUBSCRIBE"))
    assert peer.topics == {b"a", b"b", b""}
    assert peer.receive(b"\x00\x02\x00a" + command(b"CANCEL") + command(b"CANCEL", b"never there"))
    assert peer.topics == {b"b"}
    # A message that is no subscription, one of several frames, an empty one: all ignored.
    assert not peer.receive(b"\x00\x02\x02c" + b"\x01\x02\x01d\x00\x02\x01e" + b"\x00\x00")
    assert peer.topics == {b"b"}
    peer.outgoing()
    assert not peer.receive(command(b"PING", b"\0\0hm"))
    assert peer.outgoing() == command(b"PONG", b"hm")
    flood = b"".join(encode_message([b"\x01%d" % i]) for i in range(100_000))
    with pytest.raises(ZmtpError, match="subscriptions"):
        peer.receive(flood)
    other = PublisherPeer()
    other.receive(GREETING + ready(b"SUB"))
    with pytest.raises(ZmtpError, match="from a subscriber"):
        other.receive(b"\x02" + struct.pack(">Q", 1 << 40))


def test_what_is_not_a_message_has_no_frames() -> None:
    for wire in (b"\0", b"\0\5abc", b"\2\0\0"):
        with pytest.raises(ZmtpError):
            frames(wire, 0, len(wire))
        with pytest.raises(ZmtpError):
            message_ends(wire)
    with pytest.raises(ZmtpError):
        message_ends(b"\1\0")
    with pytest.raises(ValueError, match="frame"):
        encode_message([])


MESSAGES = st.lists(
    st.lists(st.binary(max_size=20) | st.integers(200, 600).map(bytes), min_size=1, max_size=9)
)


@settings(deadline=None)
@given(
    messages=MESSAGES,
    pings=st.sets(st.integers(0, 20)),
    cuts=st.lists(st.integers(0, 700)),
    version=st.sampled_from([0, 1]),
)
def test_any_fragmentation_means_the_same(
    messages: list[list[bytes]], pings: set[int], cuts: list[int], version: int
) -> None:
    greeting = bytearray(GREETING)
    greeting[11] = version
    wire = bytes(greeting) + ready(b"PUB")
    for number, message in enumerate(messages):
        wire += command(b"PING", b"\0\0") * (number in pings) + encode_message(message)
    subscriber = Subscriber()
    got, position, answers = [], 0, b""
    for cut in [*cuts, len(wire)]:
        got += payloads(subscriber.receive(wire[position : position + cut]))
        answers += subscriber.outgoing()
        position += cut
    assert got == messages
    assert subscriber._tail == b""
    assert answers.count(b"\x04PONG") == len([n for n in pings if n < len(messages)])
    assert b"\x05READY" in answers


@settings(deadline=None)
@given(data=st.lists(st.binary(max_size=30) | st.sampled_from([b"\1\0", b"\4\7\4PING\0\0", b"\0\2\1a"])))
def test_arbitrary_bytes_raise_nothing_else_and_are_not_kept(data: list[bytes]) -> None:
    subscriber, publisher = joined(Subscriber(max_message=100)), PublisherPeer()
    publisher.receive(GREETING + ready(b"XSUB"))
    for connection in (subscriber, publisher, Subscriber(), PublisherPeer()):
        for chunk in data:
            try:
                connection.receive(chunk)
            except ZmtpError:
                break
            assert len(connection._early) <= 64
    assert len(subscriber._tail) <= 100 + 65536
    assert len(publisher._rest) <= 65536 + 30


@settings(deadline=None)
@given(data=st.binary(max_size=300))
def test_arbitrary_handshakes_raise_nothing_else(data: bytes) -> None:
    for start in (b"", GREETING[:10], GREETING, GREETING + ready(b"PUB")[:7]):
        connection = Subscriber()
        try:
            connection.receive(start + data)
        except ZmtpError:
            pass
