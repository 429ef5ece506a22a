"""The last lines that a kernel's job has printed, over REST."""

from __future__ import annotations

import json

from jupyter_server.auth.decorator import authorized
from jupyter_server.services.kernels.handlers import KernelsAPIHandler
from tornado import web

from elsewhere.gateway.mapping import GatewayMappingKernelManager

LINES = 20
MOST_LINES = 10_000


class LogHandler(KernelsAPIHandler):
    """``/api/kernels/{id}/logs?lines=N``."""

    @web.authenticated
    @authorized
    async def get(self, kernel_id: str) -> None:
        """Tell up to N lines, the oldest first; none of a kernel that has no job."""
        asked = self.get_argument("lines", str(LINES))
        if not (asked.isascii() and asked.isdigit() and 1 <= int(asked[:9]) <= MOST_LINES):
            raise web.HTTPError(400, f"`lines` must be a number from 1 to {MOST_LINES}")
        kernels = self.kernel_manager
        assert isinstance(kernels, GatewayMappingKernelManager)
        kernel = kernels.manager(kernel_id).kernel
        lines = await kernels.core.call(kernel.log(int(asked))) if kernel is not None else ()
        self.finish(json.dumps({"id": kernel_id, "lines": list(lines)}))
