"""With whom a kernel is shared."""

from __future__ import annotations

import json
from typing import ClassVar

from jupyter_server.auth.decorator import authorized
from jupyter_server.services.kernels.handlers import KernelsAPIHandler
from pydantic import BaseModel
from tornado import web

from elsewhere.gateway.bodies import Sharing
from elsewhere.gateway.mapping import GatewayMappingKernelManager


class _Handler(KernelsAPIHandler):
    @property
    def _kernels(self) -> GatewayMappingKernelManager:
        kernels = self.kernel_manager
        assert isinstance(kernels, GatewayMappingKernelManager)
        return kernels


class SharesHandler(_Handler):
    """``/api/kernels/{id}/shares``: with whom a kernel is shared."""

    @web.authenticated
    @authorized
    async def get(self, kernel_id: str) -> None:
        """List them."""
        shares = self._kernels.manager(kernel_id).shares
        told = [{"user": user, "read_only": only} for user, only in sorted(shares.items())]
        self.finish(json.dumps(told))


class ShareHandler(_Handler):
    """``/api/kernels/{id}/shares/{user}``."""

    bodies: ClassVar[dict[str, type[BaseModel]]] = {"PUT": Sharing}

    @web.authenticated
    @authorized
    async def put(self, kernel_id: str, user: str) -> None:
        """Share the kernel with a user, who may look only if ``read_only``."""
        asked = Sharing.model_validate(self.get_json_body() or {})
        await self._kernels.share(kernel_id, user, asked.read_only)
        self.finish(json.dumps({"user": user, "read_only": asked.read_only}))

    @web.authenticated
    @authorized
    async def delete(self, kernel_id: str, user: str) -> None:
        """Share it with this user no longer."""
        if user not in self._kernels.manager(kernel_id).shares:
            raise web.HTTPError(404, f"kernel {kernel_id} is not shared with {user!r}")
        await self._kernels.share(kernel_id, user, None)
        self.set_status(204)
        self.finish()
