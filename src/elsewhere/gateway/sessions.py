"""Sessions that outlive the gateway, with an environment that holds nothing of its own.

A session belongs to whom its kernel belongs to, and its path is a name among that person's own.
"""

from __future__ import annotations

import os
from typing import Any

from jupyter_server.services.sessions.sessionmanager import ModelName, SessionManager
from tornado import web

from elsewhere.gateway.access import acting
from elsewhere.gateway.accounts import Account, Act


class GatewaySessionManager(SessionManager):
    """The stock session manager, on a file of the gateway's data directory."""

    def get_kernel_env(self, path: str | None, name: ModelName | None = None) -> dict[str, str]:
        """Return the session's name, and nothing of the server's environment."""
        return {"JPY_SESSION_NAME": os.path.join(os.path.dirname(path or ""), name or path or "")}

    async def list_sessions(self) -> list[Any]:
        """Return the sessions whose kernels may be seen."""
        account = acting()
        rows = self.cursor.execute("SELECT * FROM session").fetchall()
        return await self._models([row for row in rows if not self._is_hidden(account, row["kernel_id"])])

    async def session_exists(self, path: str) -> bool:
        """Whether who asks has one of this path."""
        return await self._own(path) is not None

    async def get_session(self, **kwargs: Any) -> Any:
        """Return one session. Raises HTTPError 404 for one that there is not, or not for who asks."""
        if set(kwargs) == {"path"}:
            own = await self._own(kwargs["path"])
            if own is not None:
                return own
        else:
            session = await super().get_session(**kwargs)
            if Act.SEE in self.kernel_manager.may(acting(), session["kernel"]["id"]):
                return session
        asked = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
        raise web.HTTPError(404, f"Session not found: {asked}")

    async def _own(self, path: str) -> Any:
        account = acting()
        rows = self.cursor.execute("SELECT * FROM session WHERE path=?", (path,)).fetchall()
        mine = [row for row in rows if self.kernel_manager.is_owned_by(account, row["kernel_id"])]
        return next(iter(await self._models(mine)), None)

    async def _models(self, rows: list[Any]) -> list[Any]:
        """Return the sessions of these rows; those whose kernels are gone are forgotten on the way."""
        models = [await self.row_to_model(row, tolerate_culled=True) for row in rows]
        return [model for model in models if model is not None]

    def _is_hidden(self, account: Account, kernel_id: str) -> bool:
        return kernel_id in self.kernel_manager and Act.SEE not in self.kernel_manager.may(account, kernel_id)
