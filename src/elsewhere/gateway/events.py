"""One kernel as server-sent events: its detail at once, then again at each change, until it is gone.

Source: the HTML standard, "Server-sent events" (the event stream format).
"""

from __future__ import annotations

import asyncio

from jupyter_server.auth.decorator import authorized
from jupyter_server.services.kernels.handlers import KernelsAPIHandler
from tornado import web
from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from elsewhere.gateway.accounts import Account, Act
from elsewhere.gateway.detail import KernelDetail
from elsewhere.gateway.mapping import GatewayMappingKernelManager

HEARTBEAT = 15.0
"""Seconds of silence after which a comment keeps proxies from closing the connection."""
RETRY = 3000
"""Milliseconds after which a client may come back."""


class EventsHandler(KernelsAPIHandler):
    """``/api/kernels/{id}/events``: events ``kernel``, and a last one ``end`` when the kernel is gone.

    A stream that ends without ``end`` may be asked for again: the gateway has stopped.
    """

    def initialize(self) -> None:
        """The client has not left yet."""
        self._left: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @web.authenticated
    @authorized
    async def get(self, kernel_id: str) -> None:
        """Tell until the kernel is gone, the client leaves, or the server stops."""
        kernels = self.kernel_manager
        assert isinstance(kernels, GatewayMappingKernelManager)
        kernels.manager(kernel_id)
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Accel-Buffering", "no")
        kernels.streams.opened(self)
        try:
            await self._tell(kernels, kernel_id)
        except StreamClosedError:
            pass
        finally:
            kernels.streams.ended(self)

    async def _tell(self, kernels: GatewayMappingKernelManager, kernel_id: str) -> None:
        manager = kernels.manager(kernel_id)
        told: KernelDetail | None = None
        self.write(f"retry: {RETRY}\n\n")
        while not self._left.done():
            change = manager.changes.next()
            if manager.gone or not self._may_see(kernels, kernel_id):
                change.cancel()
                await self._say("end", "{}")
                return
            detail = kernels.detailed_model(kernel_id)
            if detail.differs(told):
                told = detail
                await self._say("kernel", detail.model_dump_json())
            await asyncio.wait({change, self._left}, timeout=HEARTBEAT, return_when=asyncio.FIRST_COMPLETED)
            if not change.done():
                change.cancel()
                self.write(":\n\n")
                await self.flush()

    def _may_see(self, kernels: GatewayMappingKernelManager, kernel_id: str) -> bool:
        """Whether who asked may see the kernel still: a token may have been revoked since."""
        account: Account | None = self.settings["elsewhere_gate"].account(self.current_user)
        return account is not None and Act.SEE in kernels.may(account, kernel_id)

    async def _say(self, event: str, data: str) -> None:
        self.write(f"event: {event}\ndata: {data}\n\n")
        await self.flush()

    def on_connection_close(self) -> None:
        """The client has left."""
        self.end()

    def end(self) -> None:
        """Tell no more."""
        if not self._left.done():
            self._left.set_result(None)

    def drop(self) -> None:
        """The client takes nothing: close its connection."""
        connection = self.request.connection
        if isinstance(connection, HTTP1Connection):
            connection.stream.close()
