"""Who asks: an account, its role, and what it may do with a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase


class Role(str, Enum):
    """What an account is: a person, a front server that acts for many, or whoever runs the gateway."""

    USER = "user"
    SERVICE = "service"
    ADMIN = "admin"


class Act(Enum):
    """What may be done with one kernel. Who may not even see it is told that there is none."""

    SEE = "see"
    SEND = "send"
    CONTROL = "control"
    END = "end"
    SHARE = "share"


ALL = frozenset(Act)
SHARED = frozenset([Act.SEE, Act.SEND, Act.CONTROL])
SHOWN = frozenset([Act.SEE])
NONE: frozenset[Act] = frozenset()


@dataclass(frozen=True)
class Account:
    """``acts_for``: patterns of the names that a service may start kernels for."""

    name: str
    role: Role = Role.USER
    groups: tuple[str, ...] = ()
    acts_for: tuple[str, ...] = ()

    @property
    def is_admin(self) -> bool:
        """Whether every kernel is as good as its own."""
        return self.role is Role.ADMIN

    def may_act_for(self, owner: str) -> bool:
        """Whether it is a service that may start kernels for this person."""
        return self.role is Role.SERVICE and any(fnmatchcase(owner, pattern) for pattern in self.acts_for)

    def may(self, owner: str, shares: Mapping[str, bool]) -> frozenset[Act]:
        """Return what it may do with a kernel of this owner. ``shares``: with whom, and whether read-only."""
        if self.is_admin or (owner and (owner == self.name or self.may_act_for(owner))):
            return ALL
        if self.name in shares:
            return SHOWN if shares[self.name] else SHARED
        return NONE


SOLE = Account("", Role.ADMIN)
"""Whoever has the gateway's own token: the one person of a gateway that nobody else uses."""
