"""What a site lets people have of a cluster."""

from __future__ import annotations

import pytest
from tornado.web import HTTPError

from elsewhere.gateway.accounts import SOLE, Account, Role
from elsewhere.gateway.policy import check
from elsewhere.settings import Policy

ADA = Account("ada", groups=("lab",))


@pytest.mark.parametrize(
    ("policy", "account"),
    [
        (Policy(), ADA),
        (Policy(users=("ada",)), ADA),
        (Policy(users=("bob", "a*")), ADA),
        (Policy(groups=("lab", "office")), ADA),
        (Policy(users=("bob",), groups=("lab",)), ADA),
        (Policy(kernels_per_user=3), ADA),
        (Policy(users=("bob",), kernels_per_user=1), Account("chief", Role.ADMIN)),
        (Policy(users=("bob",), kernels_per_user=1), SOLE),
    ],
)
def test_what_may_be_had(policy: Policy, account: Account) -> None:
    check(account, "hpc", policy, lambda cluster: 2)


@pytest.mark.parametrize(
    ("policy", "account", "status", "told"),
    [
        (Policy(users=("bob",)), ADA, 403, "cluster `hpc` ([clusters.hpc.policy] users, groups)"),
        (Policy(groups=("office",)), ADA, 403, "you may not use"),
        (Policy(users=("*",), kernels_per_user=2, contact="the desk"), ADA, 409, "may have 2"),
        (Policy(users=("bob",), contact="the desk"), ADA, 403, "; ask the desk"),
        (Policy(users=("hub",)), Account("ada"), 403, "you may not use"),
    ],
)
def test_what_may_not_says_the_rule_and_whom_to_ask(
    policy: Policy, account: Account, status: int, told: str
) -> None:
    with pytest.raises(HTTPError) as refused:
        check(account, "hpc", policy, lambda cluster: 2)
    assert refused.value.status_code == status
    assert told in str(refused.value.log_message)
