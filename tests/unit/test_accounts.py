"""What an account may do with a kernel."""

from __future__ import annotations

import pytest

from elsewhere.gateway.accounts import ALL, NONE, SHARED, SHOWN, SOLE, Account, Act, Role

SHARES = {"reader": True, "helper": False}


@pytest.mark.parametrize(
    ("account", "owner", "may"),
    [
        (Account("ada"), "ada", ALL),
        (Account("bob"), "ada", NONE),
        (Account("reader"), "ada", SHOWN),
        (Account("helper"), "ada", SHARED),
        (Account("root", Role.ADMIN), "ada", ALL),
        (SOLE, "ada", ALL),
        (SOLE, "", ALL),
        (Account(""), "", NONE),
        (Account("bob"), "", NONE),
        (Account("hub", Role.SERVICE, (), ("a*",)), "ada", ALL),
        (Account("hub", Role.SERVICE, (), ("a*",)), "bob", NONE),
        (Account("hub", Role.SERVICE, (), ("*",)), "", NONE),
        (Account("hub", Role.USER, (), ("*",)), "ada", NONE),
    ],
)
def test_what_may_be_done(account: Account, owner: str, may: frozenset[Act]) -> None:
    assert account.may(owner, SHARES) == may
