"""The routes that differ from jupyter_server's: env at the start, and what a gateway tells more."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Any, ClassVar

from jupyter_client.jsonutil import json_default
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.services.api.handlers import APISpecHandler, IdentityHandler
from jupyter_server.services.kernels.handlers import (
    KernelHandler,
    KernelsAPIHandler,
    MainKernelHandler,
    _kernel_id_regex,
)
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler
from jupyter_server.services.kernelspecs.handlers import KernelSpecHandler, MainKernelSpecHandler
from jupyter_server.services.sessions.handlers import (
    SessionHandler,
    SessionRootHandler,
    _session_id_regex,
)
from jupyter_server.utils import ApiPath, url_escape, url_path_join
from pydantic import BaseModel
from tornado import web

from elsewhere.gateway.access import acting
from elsewhere.gateway.accounts import Act
from elsewhere.gateway.bodies import NewSession, Person, SessionChange, Start
from elsewhere.gateway.events import EventsHandler
from elsewhere.gateway.health import HealthHandler, ReadyHandler
from elsewhere.gateway.logtail import LogHandler
from elsewhere.gateway.mapping import GatewayMappingKernelManager
from elsewhere.gateway.metrics import MetricsHandler
from elsewhere.gateway.sharing import ShareHandler, SharesHandler


def _kernels(handler: JupyterHandler) -> GatewayMappingKernelManager:
    kernels = handler.kernel_manager
    assert isinstance(kernels, GatewayMappingKernelManager)
    return kernels


class StartHandler(MainKernelHandler):
    """``/api/kernels``."""

    bodies: ClassVar[dict[str, type[BaseModel]]] = {"POST": Start}

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """List all kernels, as every front end asks every few seconds."""
        self.finish(_kernels(self).list_text())

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Begin a start. ``env``: only KERNEL_* reach the kernel."""
        asked = Start.model_validate(self.get_json_body() or {})
        kernel_id = await self.kernel_manager.start_kernel(
            kernel_name=asked.name,
            path=None if asked.path is None else ApiPath(asked.path),
            kernel_id=asked.kernel_id,
            env=asked.passed,
        )
        location = url_path_join(self.base_url, "api", "kernels", url_escape(kernel_id))
        self.set_header("Location", location)
        self.set_status(201)
        self.finish(json.dumps(self.kernel_manager.kernel_model(kernel_id), default=json_default))


class SpecsHandler(MainKernelSpecHandler, KernelSpecHandler):
    """``/api/kernelspecs``."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """List the kernelspecs, or show one: stock clients of a user ask for it as ``?user=USER/NAME``."""
        _, one, name = self.get_argument("user", "").rpartition("/")
        if one:
            await KernelSpecHandler.get(self, name)
        else:
            await MainKernelSpecHandler.get(self)


class DetailHandler(KernelHandler):
    """``/api/kernels/{id}``."""

    @web.authenticated
    @authorized
    async def get(self, kernel_id: str) -> None:
        """Tell all that is known of one kernel."""
        self.finish(_kernels(self).detailed_model(kernel_id).model_dump_json())


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


class PersonHandler(IdentityHandler):
    """``/api/me``."""

    bodies: ClassVar[dict[str, type[BaseModel]]] = {"PATCH": Person}

    @web.authenticated
    async def get(self) -> None:
        """Tell who asks, and what of ``permissions`` he has."""
        try:
            await super().get()
        except RecursionError as error:
            raise web.HTTPError(400, "`permissions` is nested too deep") from error


class SpecHandler(APISpecHandler):
    """``/api/spec.yaml``."""

    @web.authenticated
    @authorized
    def head(self) -> Awaitable[None]:
        """Answer as ``get``, without the body; the stock one fails."""
        return web.StaticFileHandler.get(self, "api.yaml", include_body=False)


class NewSessionHandler(SessionRootHandler):
    """``/api/sessions``: the stock handler tells every refusal as a fault of the server."""

    bodies: ClassVar[dict[str, type[BaseModel]]] = {"POST": NewSession}

    def adapted(self, body: dict[str, Any]) -> dict[str, Any]:
        """Leave out a kernel that may not be used: it is as good as one that there is not."""
        kernel = body.get("kernel")
        if isinstance(kernel, dict) and Act.SEND not in _kernels(self).may(acting(), str(kernel.get("id"))):
            body = {**body, "kernel": {name: value for name, value in kernel.items() if name != "id"}}
        return body

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Make a session, and begin the start of its kernel."""
        try:
            await super().post()
        except web.HTTPError as error:
            if isinstance(error.__cause__, web.HTTPError):
                raise error.__cause__ from None
            raise


class ChangedSessionHandler(SessionHandler):
    """``/api/sessions/{id}``: the stock handler tells a start that is refused as a fault of the server."""

    bodies: ClassVar[dict[str, type[BaseModel]]] = {"PATCH": SessionChange}

    @web.authenticated
    @authorized
    async def patch(self, session_id: str) -> None:
        """Change a session; another kernel takes the place of its kernel, which is ended."""
        kernel = SessionChange.model_validate(self.get_json_body() or {}).kernel
        if kernel.id is None and kernel.name is not None:
            await self.session_manager.get_session(session_id=session_id)
            await _kernels(self).check_start(kernel.name)
        if kernel.id is not None and Act.SEND not in _kernels(self).may(acting(), kernel.id):
            raise web.HTTPError(400, f"No such kernel: {kernel.id}")
        await super().patch(session_id)


default_handlers = [
    (r"/api/kernels", StartHandler),
    (r"/api/kernelspecs", SpecsHandler),
    (rf"/api/kernels/{_kernel_id_regex}", DetailHandler),
    (rf"/api/kernels/{_kernel_id_regex}/events", EventsHandler),
    (rf"/api/kernels/{_kernel_id_regex}/logs", LogHandler),
    (rf"/api/kernels/{_kernel_id_regex}/shares", SharesHandler),
    (rf"/api/kernels/{_kernel_id_regex}/shares/(?P<user>[^/]{{1,64}})", ShareHandler),
    (rf"/api/kernels/{_kernel_id_regex}/restart", RestartHandler),
    (rf"/api/kernels/{_kernel_id_regex}/channels", ChannelsHandler),
    (r"/api/sessions", NewSessionHandler),
    (rf"/api/sessions/{_session_id_regex}", ChangedSessionHandler),
    (r"/api/me", PersonHandler),
    (r"/api/spec.yaml", SpecHandler),
    (r"/metrics", MetricsHandler),
    (r"/healthz", HealthHandler),
    (r"/readyz", ReadyHandler),
]
