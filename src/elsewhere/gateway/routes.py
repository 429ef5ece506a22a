"""Each route refuses what it cannot take, as JSON and with a reason, before its handler hears of it.

The handlers are jupyter_server's and ours; each is served as a subclass of itself with ``Refuses`` before it,
so a route that a later release brings is no exception. Sources: tornado's documentation of ``RequestHandler``
and of ``tornado.routing``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from http.client import responses
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from pydantic import BaseModel
from tornado import web
from tornado.routing import ReversibleRuleRouter, Rule

from elsewhere.gateway.access import Need, decision
from elsewhere.gateway.accounts import Account, Act
from elsewhere.gateway.bodies import checked, read
from elsewhere.gateway.gate import Gate

LONGEST_TARGET = 8192
"""Characters of a request's path and query at most, as other servers have it."""

UNKNOWN_METHOD = "UNKNOWN"
"""What a method is called that nobody serves: its own name would be a label of metrics for ever."""


class Refuses(web.RequestHandler):
    """What stands before each handler's class.

    A handler that names a model in ``bodies`` for a method gets only bodies that are such; one that has a
    method ``adapted`` gets what that makes of them.
    """

    bodies: ClassVar[dict[str, type[BaseModel]]]
    account: Account | None = None
    """Who asks; None for nobody, or before that is known."""
    logs_in = False
    """Whether it is one of the identity provider's, for those who are nobody yet."""
    concerns: tuple[str, str] = ("", "")
    """The kernel that the request is about, and its owner."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Forget URLs that are none: jupyter_server takes them apart in many places, even for its log."""
        super().initialize(*args, **kwargs)
        if self.request.method not in self.SUPPORTED_METHODS:
            self.request.method = UNKNOWN_METHOD
        for name in ("Referer", "Origin"):
            if name in self.request.headers and not _is_url(self.request.headers[name]):
                self.request.headers[name] = "null"  # it is of nobody; without it, it would be of a script
        if not _is_url(self.request.uri or ""):
            self.request.uri = "/" + quote(self.request.uri or "", safe="/?&=%")[1:].lstrip("/")

    async def prepare(self) -> None:
        """Refuse what no handler expects: it is often decoded only where nobody is prepared for it.

        Then refuse who may not.
        """
        if len(self.request.uri or "") > LONGEST_TARGET:
            raise web.HTTPError(414, f"the URL is longer than {LONGEST_TARGET} characters")
        for name in self.request.arguments:
            self.get_arguments(name)
        if not all(map(_leads_somewhere, self.get_arguments("next"))):
            raise web.HTTPError(400, "`next` is no URL")
        given = (*self.path_args, *self.path_kwargs.values(), *self.request.arguments)
        if any("\0" in text for text in given if text):
            raise web.HTTPError(400, "the URL holds a NUL byte")
        prepared: Any = super().prepare()
        if prepared is not None:
            await prepared
        if not self._finished:
            await self._admit()

    async def _admit(self) -> None:
        """Let go on who may. To who may not even see a kernel there is none."""
        gate: Gate = self.settings["elsewhere_gate"]
        self.account = gate.account(self.current_user if hasattr(self, "identity_provider") else None)
        needed = decision(self)
        if needed is Need.NOTHING:
            return
        if needed is None:
            raise web.HTTPError(403, "nobody has decided who may do this")
        if self.account is None:
            raise web.HTTPError(403, "a token is needed: `Authorization: token …`")
        if needed is Need.ADMIN and not self.account.is_admin:
            raise web.HTTPError(403, "only an admin may do this")
        if isinstance(needed, Act):
            await gate.check(self.account, needed, **self.path_kwargs)
        if self.request.headers.get("Upgrade"):  # nobody knows when that ends
            gate.told(self, 101)

    def on_finish(self) -> None:
        """Write down what was asked, and what came of it."""
        super().on_finish()
        gate: Gate | None = self.settings.get("elsewhere_gate")
        if gate is not None and self.get_status() != 101:
            gate.told(self, self.get_status())

    def get_json_body(self) -> dict[str, Any] | None:
        """Return the body, None if there is none. Raises HTTPError 400 for what is no object of JSON."""
        body = read(self.request.body)
        models: dict[str, type[BaseModel]] = getattr(self, "bodies", {})
        model = models.get(self.request.method or "")
        if model is not None:
            checked(model, body or {})
        adapted: Callable[[dict[str, Any]], dict[str, Any]] | None = getattr(self, "adapted", None)
        return adapted(body) if adapted is not None and body is not None else body

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Tell the reason as stock clients read it. Of a fault of ours nothing is told but that it is one."""
        self.request.arguments = {}  # stock handlers read them to the end, and they may be what is wrong
        error = kwargs.get("exc_info", (None, None, None))[1]
        message, reason = responses.get(status_code, "Unknown HTTP Error"), None
        if isinstance(error, web.HTTPError):
            message = error.log_message % error.args if error.log_message else message
            reason = error.reason
        elif error is not None:
            message = "Unhandled error"
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"message": message, "reason": reason}))


def refuse_bad_requests(router: ReversibleRuleRouter, of_logging_in: Iterable[object] = ()) -> None:
    """Have every handler of this router begin with ``Refuses``.

    ``of_logging_in``: the handlers that the identity provider brings, to which one comes as nobody.
    """
    known = tuple(one for one in of_logging_in if isinstance(one, type))
    for rule in router.rules:
        _refuse(rule, known)


def _refuse(rule: Rule, of_logging_in: tuple[type, ...]) -> None:
    handler = rule.target
    if isinstance(handler, type) and issubclass(handler, web.RequestHandler):
        logs_in = issubclass(handler, of_logging_in)
        own = {"__module__": handler.__module__, "__doc__": handler.__doc__, "logs_in": logs_in}
        rule.target = type(handler.__name__, (Refuses, handler), own)


def _is_url(text: str) -> bool:
    try:
        urlsplit(text)
    except ValueError:
        return False
    return True


def _leads_somewhere(url: str) -> bool:
    """Whether it can be taken apart, also when slashes are counted as browsers do."""
    return _is_url(url) and _is_url("//" + url.rpartition(":")[2].lstrip("/\\"))
