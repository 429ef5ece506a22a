"""The people of a gateway: tokens that are kept as hashes, expire, are revoked, and are known at once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from elsewhere.errors import ElsewhereError
from elsewhere.gateway.accounts import Account, Role
from elsewhere.gateway.people import FILE, People


@pytest.fixture
def people(tmp_path: Path) -> People:
    return People(tmp_path / "data")


def test_a_token_tells_whose_it_is(people: People) -> None:
    ada = people.add("ada", groups=("lab",))
    hub = people.add("hub", role=Role.SERVICE, acts_for=("team-*",))
    assert people.find(ada) == people.of("ada") == Account("ada", Role.USER, ("lab",))
    assert people.find(hub) == Account("hub", Role.SERVICE, (), ("team-*",))
    assert people.of("nobody") is None


@pytest.mark.parametrize(
    "change", ["", "x", ".", "{id}.", "{id}.x", ".{secret}", "{secret}", "{token}x", "\udcff"]
)
def test_what_is_no_token_is_nobodys(people: People, change: str) -> None:
    token = people.add("ada")
    token_id, _, secret = token.partition(".")
    assert people.find(change.format(id=token_id, secret=secret, token=token)) is None


def test_no_token_is_in_the_file_and_nobody_else_can_read_it(people: People) -> None:
    token = people.add("ada")
    assert token.partition(".")[2] not in people.path.read_text()
    assert people.path.stat().st_mode & 0o777 == 0o600
    assert people.path.name == FILE


def test_tokens_are_added_and_revoked_one_by_one(people: People) -> None:
    first, second = people.add("ada", role=Role.ADMIN), people.add("ada")
    assert people.find(first) == people.find(second) == Account("ada", Role.ADMIN)
    assert people.revoke("ada", first.partition(".")[0]) == 1
    assert people.find(first) is None
    assert people.find(second) is not None
    assert people.revoke("ada") == 1
    assert people.find(second) is people.of("ada") is None
    assert people.all() == []


def test_a_token_expires(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    token = people.add("ada", days=1e-9)
    assert people.find(token) is None
    assert people.of("ada") is None, "nor does a cookie let them in"
    later = people.add("ada", days=1)
    assert people.find(later) == Account("ada")


def test_another_process_is_heard_of_at_once(people: People) -> None:
    gateway = People(people.path.parent)
    token = people.add("ada")
    assert gateway.find(token) == Account("ada")
    people.revoke("ada")
    assert gateway.find(token) is None


def test_nobody_is_lost_when_many_are_added_at_the_same_time(people: People) -> None:
    names = [f"user{number}" for number in range(20)]
    with ThreadPoolExecutor(8) as threads:
        tokens = list(threads.map(lambda name: People(people.path.parent).add(name), names))
    assert [people.find(token) for token in tokens] == [Account(name) for name in names]


def test_a_broken_file_lets_nobody_in_and_is_not_written_over(
    people: People, caplog: pytest.LogCaptureFixture
) -> None:
    token = people.add("ada")
    people.path.write_text("{")
    assert people.find(token) is None
    assert "nobody but the holder" in caplog.text
    with pytest.raises(ElsewhereError, match="cannot be read"):
        people.add("bob")
    assert people.path.read_text() == "{"


@pytest.mark.parametrize(
    ("name", "more", "told"),
    [
        ("", {}, "name: ''"),
        (":", {}, "letters, digits"),
        ("a b", {}, "letters, digits"),
        ("../x", {}, "letters, digits"),
        ("$(x)", {}, "letters, digits"),
        ("a\nb", {}, "letters, digits"),
        ("x" * 65, {}, "more than 64"),
        ("ada", {"groups": ("a b",)}, "groups: 'a b'"),
        ("ada", {"acts_for": ("*",)}, "ada is no service"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    people: People, name: str, more: dict[str, tuple[str, ...]], told: str
) -> None:
    with pytest.raises(ElsewhereError, match=None) as refused:
        people.add(name, groups=more.get("groups"), acts_for=more.get("acts_for"))
    assert told in str(refused.value)
    assert not people.path.exists()


def test_a_near_miss_is_named(people: People) -> None:
    token = people.add("ada")
    with pytest.raises(ElsewhereError, match="did you mean `ada`"):
        people.revoke("adda")
    with pytest.raises(ElsewhereError, match="has no token 'zz'"):
        people.revoke("ada", "zz")
    assert people.find(token) is not None


def test_the_file_says_its_version(people: People) -> None:
    people.add("ada")
    assert json.loads(people.path.read_text())["version"] == 1
