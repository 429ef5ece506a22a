"""Lets in who may: what an account may do with the kernel that a request names."""

from __future__ import annotations

from typing import Any

from tornado import web

from elsewhere.gateway.access import REFUSED
from elsewhere.gateway.accounts import Account, Act
from elsewhere.gateway.identity import Accounts
from elsewhere.gateway.mapping import GatewayMappingKernelManager
from elsewhere.gateway.sessions import GatewaySessionManager


class Gate:
    """One gateway's."""

    def __init__(
        self, accounts: Accounts, kernels: GatewayMappingKernelManager, sessions: GatewaySessionManager
    ) -> None:
        self._accounts = accounts
        self._kernels = kernels
        self._sessions = sessions

    def account(self, user: Any) -> Account | None:
        """Return who this user of the identity provider is."""
        return self._accounts.of(user)

    async def check(
        self, account: Account, act: Act, *, kernel_id: str = "", session_id: str = "", **others: object
    ) -> None:
        """Raise HTTPError 404 for a kernel that may not be seen, 403 for what may not be done with it."""
        if session_id:
            kernel_id = (await self._sessions.get_session(session_id=session_id))["kernel"]["id"]
        self._kernels.manager(kernel_id)
        may = self._kernels.may(account, kernel_id)
        if Act.SEE not in may:
            raise web.HTTPError(404, f"Kernel does not exist: {kernel_id}")
        if act not in may:
            raise web.HTTPError(403, REFUSED[act].format(kernel_id))
