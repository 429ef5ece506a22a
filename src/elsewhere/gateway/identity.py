"""Who is at the other end of a request: the holder of a person's token, or of the gateway's own."""

from __future__ import annotations

import hmac
from typing import Any, cast

from jupyter_server.auth.identity import PasswordIdentityProvider, User
from tornado import web
from traitlets import Set, Unicode
from traitlets.config import LoggingConfigurable

from elsewhere.gateway.accounts import SOLE, Account, Role
from elsewhere.gateway.people import People

SOLE_USER = ":"
"""The name of whoever has the gateway's own token, in a cookie: no person can have it."""


class GatewayIdentityProvider(PasswordIdentityProvider):
    """The stock one, which also knows people by tokens of their own."""

    people: People
    """Set before the first request."""

    async def get_user_token(self, handler: web.RequestHandler) -> User | None:
        """Return whose token the request has."""
        given = self.get_token(handler)
        if not given:
            return None
        if self.token and hmac.compare_digest(*(_bytes(one) for one in (given, self.token))):
            return self.generate_anonymous_user(handler)
        account = self.people.find(given)
        return User(account.name) if account is not None else None

    def generate_anonymous_user(self, handler: web.RequestHandler) -> User:
        """Return the one person of a gateway's own token or password, or of a gateway without either."""
        return User(SOLE_USER, "the gateway's own", "the gateway's own", "GW")

    def user_from_cookie(self, cookie_value: str) -> User | None:
        """Return who logged in before, unless their tokens were revoked or have expired since."""
        user = super().user_from_cookie(cookie_value)
        return user if user is not None and self.account(user) is not None else None

    def account(self, user: User) -> Account | None:
        """Return what this user is to the gateway."""
        return SOLE if user.username == SOLE_USER else self.people.of(user.username)


class Accounts(LoggingConfigurable):
    """The account of whoever an identity provider, ours or a site's, says is asking."""

    admin_users: Any = Set(Unicode(), config=True, help="Who is an admin, by a site's own identity provider.")

    def __init__(self, provider: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._provider = provider

    def of(self, user: Any) -> Account | None:
        """Return the account, None for nobody."""
        if user is None:
            return None
        if isinstance(self._provider, GatewayIdentityProvider):
            return self._provider.account(user)
        name = cast("str", getattr(user, "username", "") or "")
        if not name:
            return None
        groups = tuple(map(str, getattr(user, "groups", ()) or ()))
        return Account(name, Role.ADMIN if name in self.admin_users else Role.USER, groups)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
