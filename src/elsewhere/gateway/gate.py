"""Lets in who may: what an account may do with the kernel that a request names."""

from __future__ import annotations

from typing import Any

from tornado import web

from elsewhere.gateway.access import REFUSED, concerns, decision
from elsewhere.gateway.accounts import Account, Act
from elsewhere.gateway.audit import Access, Audit
from elsewhere.gateway.identity import Accounts
from elsewhere.gateway.mapping import GatewayMappingKernelManager
from elsewhere.gateway.sessions import GatewaySessionManager

_STARTS = {("StartHandler", "POST"): "start", ("NewSessionHandler", "POST"): "start"}


class Gate:
    """One gateway's. ``audit``: where what people do is written down."""

    def __init__(
        self,
        accounts: Accounts,
        kernels: GatewayMappingKernelManager,
        sessions: GatewaySessionManager,
        audit: Audit | None = None,
    ) -> None:
        self._accounts = accounts
        self._kernels = kernels
        self._sessions = sessions
        self._audit = audit

    def account(self, user: Any) -> Account | None:
        """Return who this user of the identity provider is."""
        return self._accounts.of(user)

    async def check(
        self, account: Account, act: Act, *, kernel_id: str = "", session_id: str = "", **others: object
    ) -> None:
        """Raise HTTPError 404 for a kernel that may not be seen, 403 for what may not be done with it."""
        if session_id:
            kernel_id = (await self._sessions.get_session(session_id=session_id))["kernel"]["id"]
        concerns(kernel_id, self._kernels.manager(kernel_id).owner)
        may = self._kernels.may(account, kernel_id)
        if Act.SEE not in may:
            raise web.HTTPError(404, f"Kernel does not exist: {kernel_id}")
        if act not in may:
            raise web.HTTPError(403, REFUSED[act].format(kernel_id))

    def told(self, handler: web.RequestHandler, status: int) -> None:
        """Write down an access to a kernel, or the start of one."""
        if self._audit is None:
            return
        needed = decision(handler)
        act = _STARTS.get((type(handler).__name__, handler.request.method or ""), "")
        if isinstance(needed, Act):
            act = needed.value
        if not act:
            return
        account: Account | None = getattr(handler, "account", None)
        kernel_id, owner = getattr(handler, "concerns", ("", ""))
        access = Access(
            who=account.name if account is not None else "",
            role=account.role.value if account is not None else "",
            act=act,
            kernel_id=kernel_id,
            owner=owner,
            method=handler.request.method or "",
            path=handler.request.path,
            address=handler.request.remote_ip or "",
            allowed=status not in (401, 403, 404),
            status=status,
        )
        self._audit.tell(access)
