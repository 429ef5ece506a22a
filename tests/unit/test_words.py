"""The words between agent and home: what is encoded is decoded, and nothing else is believed."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from elsewhere.agent.words import (
    Accepted,
    Ack,
    Command,
    Hello,
    Opening,
    Refused,
    Report,
    Welcome,
    WordReader,
    WordsError,
    decode,
    encode,
    expect,
)

WORDS: list[Any] = [
    Hello(1, "home", "kernel", 3, "token", "secret", "0.1", "node1"),
    Welcome(1, "life", ["a", "b"]),
    Refused("no", True),
    Report(2, "exited", pid=7, exit_code=-9, log=["a", "\udcff"], cpu=1.5, rss=3, welcome="AA=="),
    Command(4, "start", order={"argv": ["x"], "env": {"Ä": "\udce4"}}, grace=1),
    Ack(4, "error"),
    Opening("shell", "p", 0),
    Accepted(10),
]


def raw(kind: str, **fields: Any) -> bytes:
    return json.dumps([kind, fields]).encode()


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_every_word_comes_back_however_the_bytes_are_cut(size: int) -> None:
    wire = b"".join(map(encode, WORDS))
    reader = WordReader()
    heard = []
    for start in range(0, len(wire), size):
        heard += reader.feed(wire[start : start + size])
    assert heard == WORDS


def test_fields_of_a_later_release_are_ignored_and_those_of_an_earlier_one_have_defaults() -> None:
    assert decode(raw("ack", number=1, mood="fine")) == Ack(1, "")
    assert decode(raw("report", start=1, phase="ready")) == Report(1, "ready")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"{}",
        b"[]",
        b'["ack"]',
        b'["ack", []]',
        b'["ack", null]',
        b'[["ack"], {}]',
        b'["shout", {}]',
        raw("ack"),
        raw("ack", error="no number"),
        raw("ack", number="1"),
        raw("ack", number=-1),
        raw("ack", number=True),
        raw("ack", number=1.0),
        raw("ack", number=1, error=None),
        raw("accepted", received=None),
        raw("welcome", protocol=1, instance="x", pipes="abc"),
        raw("welcome", protocol=1, instance="x", pipes=[1]),
        raw("refused", reason="no", final="yes"),
        raw("command", number=1, verb="start", order=[]),
        raw("command", number=1, verb="end", grace="5"),
        raw("report", start=1, phase="ready", pid="1"),
        raw("report", start=1, phase="ready", cpu="1"),
        raw("report", start=1, phase="ready", idle="1"),
        raw("report", start=1, phase="ready", log=[b"x".decode(), 1]),
        b'["ack", {"number": ' + b"9" * 5000 + b"}]",
        b"[" * 100_000,
    ],
)
def test_whatever_is_not_a_word_is_refused_by_name(body: bytes) -> None:
    with pytest.raises(WordsError):
        decode(body)


def test_a_word_of_another_kind_than_expected_is_refused() -> None:
    assert expect(Ack(1), Ack) == Ack(1)
    with pytest.raises(WordsError, match="expected Hello, got Ack"):
        expect(Ack(1), Hello)


def test_a_length_over_the_limit_is_refused_before_anything_is_kept() -> None:
    reader = WordReader(limit=100)
    with pytest.raises(WordsError, match="a word of 1073741824 bytes, the limit is 100"):
        reader.feed(struct.pack(">I", 1 << 30))
    fitting = encode(Ack(1, "x" * (100 - len(encode(Ack(1))) + 4)))
    assert len(fitting) == 104
    assert WordReader(limit=100).feed(fitting)
    with pytest.raises(WordsError):
        WordReader(limit=99).feed(fitting)


def test_first_gives_back_what_is_behind_the_word() -> None:
    wire = encode(Opening("hb", "p", 0))
    reader = WordReader()
    assert reader.first(wire[:10]) == (None, b"")
    assert reader.first(wire[10:] + b"behind") == (Opening("hb", "p", 0), b"behind")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(sorted({name for word in WORDS for name in word._fields}))
likely = st.tuples(
    st.sampled_from([type(word).__name__.lower() for word in WORDS]),
    st.dictionaries(names, json_values, max_size=13),
).map(lambda pair: json.dumps(pair).encode())


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()) | likely)
@example(b"\xed\xa0\x80")
def test_garbage_is_a_words_error_and_nothing_else(body: bytes) -> None:
    with contextlib.suppress(WordsError):
        word = decode(body)
        assert type(decode(encode(word)[4:])) is type(word)
    with contextlib.suppress(WordsError):
        WordReader(limit=1000).feed(framed(body))
    with contextlib.suppress(WordsError):
        WordReader(limit=1000).feed(body)
