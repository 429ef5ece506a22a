"""The routes that differ from jupyter_server's: env at the start, detail, health."""

from __future__ import annotations

import json
from typing import Any

from jupyter_client.jsonutil import json_default
from jupyter_server.auth.decorator import allow_unauthenticated, authorized
from jupyter_server.services.kernels.handlers import (
    KernelHandler,
    KernelsAPIHandler,
    MainKernelHandler,
    _kernel_id_regex,
)
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler
from jupyter_server.utils import url_escape, url_path_join
from tornado import web

from elsewhere.gateway.mapping import GatewayMappingKernelManager

PASSED = "KERNEL_"


class StartHandler(MainKernelHandler):
    """``/api/kernels``."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Begin a start. ``env``: only KERNEL_* reach the kernel."""
        model = self.get_json_body() or {}
        if not isinstance(model, dict):
            raise web.HTTPError(400, "the body must be a JSON object")
        start: dict[str, Any] = {"env": _kernel_env(model.get("env"))}
        for name in ("name", "path", "kernel_id"):
            value = model.get(name)
            if value is not None and not isinstance(value, str):
                raise web.HTTPError(400, f"`{name}` must be text")
        kernel_id = await self.kernel_manager.start_kernel(
            kernel_name=model.get("name"), path=model.get("path"), kernel_id=model.get("kernel_id"), **start
        )
        location = url_path_join(self.base_url, "api", "kernels", url_escape(kernel_id))
        self.set_header("Location", location)
        self.set_status(201)
        self.finish(json.dumps(self.kernel_manager.kernel_model(kernel_id), default=json_default))


class DetailHandler(KernelHandler):
    """``/api/kernels/{id}``."""

    @web.authenticated
    @authorized
    async def get(self, kernel_id: str) -> None:
        """Tell all that is known of one kernel."""
        kernels = self.kernel_manager
        assert isinstance(kernels, GatewayMappingKernelManager)
        model = kernels.detailed_model(kernel_id)
        self.finish(json.dumps(model, default=json_default))


class RestartHandler(KernelsAPIHandler):
    """``/api/kernels/{id}/restart``: the stock handler tells every refusal as a fault of the server."""

    @web.authenticated
    @authorized
    async def post(self, kernel_id: str) -> None:
        """Begin a restart."""
        await self.kernel_manager.restart_kernel(kernel_id)
        self.finish(json.dumps(self.kernel_manager.kernel_model(kernel_id), default=json_default))


class ChannelsHandler(KernelWebsocketHandler):
    """``/api/kernels/{id}/channels``."""

    async def on_message(self, ws_message: str | bytes) -> None:
        """Read no more from this client while its kernel takes nothing."""
        await self.connection.take(ws_message)


class HealthHandler(KernelsAPIHandler):
    """``/healthz`` and ``/readyz``: for probes, so without a token, and they tell nothing else."""

    @allow_unauthenticated
    async def get(self) -> None:
        """We answer, so we live; HTTP opens after the ledger is read, so we are ready."""
        self.finish(json.dumps({"status": "ok"}))


def _kernel_env(env: object) -> dict[str, str]:
    if env is None:
        return {}
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise web.HTTPError(400, "`env` must be an object of texts")
    return {name: value for name, value in env.items() if name.startswith(PASSED)}


default_handlers = [
    (r"/api/kernels", StartHandler),
    (rf"/api/kernels/{_kernel_id_regex}", DetailHandler),
    (rf"/api/kernels/{_kernel_id_regex}/restart", RestartHandler),
    (rf"/api/kernels/{_kernel_id_regex}/channels", ChannelsHandler),
    (r"/healthz", HealthHandler),
    (r"/readyz", HealthHandler),
]
