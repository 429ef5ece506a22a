"""Sessions that outlive the gateway, with an environment that holds nothing of its own."""

from __future__ import annotations

import os

from jupyter_server.services.sessions.sessionmanager import ModelName, SessionManager


class GatewaySessionManager(SessionManager):
    """The stock session manager, on a file of the gateway's data directory."""

    def get_kernel_env(self, path: str | None, name: ModelName | None = None) -> dict[str, str]:
        """Return the session's name, and nothing of the server's environment."""
        return {"JPY_SESSION_NAME": os.path.join(os.path.dirname(path or ""), name or path or "")}
