"""Bodies of requests: what is wrong is told with its field and the near miss; stock clients' extras pass."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.web import HTTPError

from elsewhere.gateway.bodies import LONGEST_VALUE, NewSession, Person, Start, checked, read

ID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"

WRONG: dict[str, tuple[object, str]] = {
    "near miss": ({"nmae": "x"}, r"nmae: unknown field \(did you mean `name`\?\)"),
    "name of a wrong type": ({"name": 7}, "body: name: must be text, not 7"),
    "long name": ({"name": "n" * 300}, "body: name: "),
    "path that leads out": ({"path": "a/../../etc"}, r"path: must not lead out of its directory by `\.\.`"),
    "long path": ({"path": "a/" * 5000}, "body: path: "),
    "id with a path in it": ({"kernel_id": "../../x"}, "kernel_id: must be a UUID in lower case"),
    "id in upper case": ({"kernel_id": ID.upper()}, "must be a UUID in lower case"),
    "id in other digits": ({"kernel_id": ID.replace("1", "١")}, "must be a UUID in lower case"),
    "env that is a list": ({"env": ["a"]}, "env: must be a table, not a list"),
    "value of a wrong type": ({"env": {"KERNEL_X": 1}}, "env.KERNEL_X: must be text, not 1"),
    "name with =": ({"env": {"KERNEL_A=B": "x"}}, "'KERNEL_A=B' cannot be the name of a variable"),
    "name with a newline": ({"env": {"KERNEL_\nA": "x"}}, "cannot be the name of a variable"),
    "value too long to be given": (
        {"env": {"KERNEL_A": "x" * 200_000}},
        f"more than the {LONGEST_VALUE} bytes",
    ),
    "too many values": (
        {"env": {f"KERNEL_{n}": "x" * 100_000 for n in range(11)}},
        "more than 1048576 characters in all",
    ),
}


@pytest.mark.parametrize(("body", "told"), WRONG.values(), ids=[*WRONG])
def test_what_is_wrong_is_told(body: dict[str, object], told: str) -> None:
    with pytest.raises(HTTPError, match=told) as raised:
        checked(Start, body)
    assert raised.value.status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": None, "path": None, "kernel_id": None, "env": None},
        {"name": "python3", "path": "a/b..c", "kernel_id": ID, "env": {"KERNEL_A": "b\nc", "PATH": "/"}},
        {"name": "python3", "type": "notebook", "kernel_name": "x", "kernel": {}, "anything": [1]},
        {"env": {"no = name": "is passed, so it does not matter", "": ""}},
    ],
)
def test_what_stock_clients_send_passes(body: dict[str, object]) -> None:
    checked(Start, body)


def test_only_kernel_variables_are_passed() -> None:
    start = Start.model_validate({"env": {"KERNEL_A": "1", "HOME": "/", "kernel_b": "2"}})
    assert start.passed == {"KERNEL_A": "1"}


def test_a_session_names_the_place_of_what_is_wrong() -> None:
    with pytest.raises(HTTPError, match=r"kernel\.id: must be a UUID"):
        checked(NewSession, {"path": "a", "type": "notebook", "kernel": {"id": "x"}})
    with pytest.raises(HTTPError, match="kernel: must be a table, not a list"):
        checked(NewSession, {"kernel": []})


def test_a_person_has_no_name_that_is_too_long_for_a_cookie() -> None:
    with pytest.raises(HTTPError):
        checked(Person, {"name": "x" * 5000})


NO_OBJECTS = [
    (b"[]", "must be a JSON object"),
    (b"null", "must be a JSON object"),
    (b"{", "Invalid JSON"),
    (b"\xff{}", "Invalid JSON"),
    (b'{"a": NaN}', "Invalid JSON"),
    (b'{"a": -Infinity}', "Invalid JSON"),
    (b'{"a": ' + b"9" * 100_000 + b"}", "Invalid JSON"),
    (b"[" * 200_000, "Invalid JSON"),
    (b'{"a":' * 60 + b"1" + b"}" * 60, "nested more than 50 deep"),
    (b'{"a": ["\\u0000"]}', "NUL"),
    (b'{"\\u0000": 1}', "NUL"),
    (b'{"a": "\\ud800"}', "surrogate"),
]


@pytest.mark.parametrize(("body", "told"), NO_OBJECTS)
def test_a_body_that_is_no_object_of_texts_is_refused(body: bytes, told: str) -> None:
    with pytest.raises(HTTPError, match=told) as raised:
        read(body)
    assert raised.value.status_code == 400


def test_no_body_is_none() -> None:
    assert read(b"") is None
    assert read(b" \n") is None
    assert read(b' {"a": "\\ud83d\\ude00"} ') == {"a": "😀"}


@given(st.binary(max_size=50) | st.text().map(lambda text: json.dumps({"a": text}).encode()))
def test_reading_never_fails_otherwise(body: bytes) -> None:
    try:
        value = read(body)
    except HTTPError as error:
        assert error.status_code == 400
    else:
        json.dumps(value, ensure_ascii=False).encode()
