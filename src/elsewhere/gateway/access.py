"""What each route needs of who asks for it. A handler that is not listed here is refused to everybody."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from jupyter_server.base.call_context import CallContext
from tornado import web

from elsewhere.gateway.accounts import SOLE, Account, Act


class Need(Enum):
    """NOTHING: anybody may ask. ACCOUNT: one must be somebody. ADMIN: one must be an admin."""

    NOTHING = "nothing"
    ACCOUNT = "account"
    ADMIN = "admin"


Decision = Need | Act
"""What the identity provider brings is open to all. An act is one on the kernel that the route names, or on
that of the session which it names."""

_PUBLIC = {"GET": Need.NOTHING, "HEAD": Need.NOTHING}
_ANYBODY_KNOWN = {"GET": Need.ACCOUNT, "HEAD": Need.ACCOUNT}

DECISIONS: Mapping[str, Mapping[str, Decision]] = {
    "StartHandler": {"GET": Need.ACCOUNT, "POST": Need.ACCOUNT},
    "MainKernelHandler": {"GET": Need.ACCOUNT, "POST": Need.ACCOUNT},
    "DetailHandler": {"GET": Act.SEE, "DELETE": Act.END},
    "KernelHandler": {"GET": Act.SEE, "DELETE": Act.END},
    "EventsHandler": {"GET": Act.SEE},
    "LogHandler": {"GET": Act.SEE},
    "SharesHandler": {"GET": Act.SHARE},
    "ShareHandler": {"PUT": Act.SHARE, "DELETE": Act.SHARE},
    "RestartHandler": {"POST": Act.CONTROL},
    "KernelActionHandler": {"POST": Act.CONTROL},
    "ChannelsHandler": {"GET": Act.SEE},
    "KernelWebsocketHandler": {"GET": Act.SEE},
    "NewSessionHandler": {"GET": Need.ACCOUNT, "POST": Need.ACCOUNT},
    "SessionRootHandler": {"GET": Need.ACCOUNT, "POST": Need.ACCOUNT},
    "ChangedSessionHandler": {"GET": Act.SEE, "PATCH": Act.END, "DELETE": Act.END},
    "SessionHandler": {"GET": Act.SEE, "PATCH": Act.END, "DELETE": Act.END},
    "SpecsHandler": _ANYBODY_KNOWN,
    "MainKernelSpecHandler": _ANYBODY_KNOWN,
    "KernelSpecHandler": _ANYBODY_KNOWN,
    "KernelSpecResourceHandler": _ANYBODY_KNOWN,
    "PersonHandler": {"GET": Need.ACCOUNT, "PATCH": Need.ACCOUNT},
    "IdentityHandler": {"GET": Need.ACCOUNT, "PATCH": Need.ACCOUNT},
    "SpecHandler": _ANYBODY_KNOWN,
    "APISpecHandler": _ANYBODY_KNOWN,
    "APIStatusHandler": _ANYBODY_KNOWN,
    "MetricsHandler": _ANYBODY_KNOWN,
    "PrometheusMetricsHandler": _ANYBODY_KNOWN,
    "EventHandler": {"POST": Need.ADMIN},
    "SubscribeWebsocket": {"GET": Need.ADMIN},
    "PathResolverHandler": {"GET": Need.ADMIN},
    "HealthHandler": _PUBLIC,
    "ReadyHandler": _PUBLIC,
    "APIVersionHandler": _PUBLIC,
    "FileFindHandler": _PUBLIC,
    "PublicStaticFileHandler": _PUBLIC,
    "MainHandler": {**_PUBLIC, "POST": Need.NOTHING, "PUT": Need.NOTHING},
    "TrailingSlashHandler": {**_PUBLIC, "POST": Need.NOTHING, "PUT": Need.NOTHING},
    "Template404": dict.fromkeys(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"), Need.NOTHING),
}

METRICS = frozenset(["MetricsHandler", "PrometheusMetricsHandler"])
"""What jupyter_server's ``authenticate_prometheus`` opens to all."""


def decision(handler: web.RequestHandler) -> Decision | None:
    """Return what this request needs; None if nobody has decided."""
    method = handler.request.method or ""
    serves = getattr(type(handler), method.lower(), web.RequestHandler._unimplemented_method)
    if getattr(handler, "logs_in", False):
        return Need.NOTHING
    if method == "OPTIONS" or serves is web.RequestHandler._unimplemented_method:
        return Need.NOTHING  # the answer is 405
    name = type(handler).__name__
    if name in METRICS and not handler.settings.get("authenticate_prometheus", True):
        return Need.NOTHING
    return DECISIONS.get(name, {}).get(method)


def acting() -> Account:
    """Return who has asked for what is being done; the gateway itself is as good as its own person."""
    handler: Any = CallContext.get(CallContext.JUPYTER_HANDLER)
    account: Account | None = getattr(handler, "account", SOLE)
    return account if account is not None else Account("")


def concerns(kernel_id: str, owner: str) -> None:
    """Say which kernel the present request is about."""
    handler: Any = CallContext.get(CallContext.JUPYTER_HANDLER)
    if handler is not None:
        handler.concerns = (kernel_id, owner)


REFUSED: Mapping[Act, str] = {
    Act.SEND: "you may look at kernel {}, and not use it",
    Act.CONTROL: "you may look at kernel {}, and neither interrupt nor restart it",
    Act.END: "kernel {} is not yours: its owner or an admin can end it",
    Act.SHARE: "kernel {} is not yours: its owner or an admin can share it",
}
