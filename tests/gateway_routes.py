"""What a gateway serves, read from its application: run as a program, with a directory for its data.

Prints a list of ``[pattern, handler, [method, …]]`` as JSON, in the order in which they are tried.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from tornado.routing import AnyMatches, PathMatches
from tornado.web import RequestHandler

from elsewhere.gateway.app import GatewayApp


def served(rules: list[Any]) -> Iterator[tuple[str, str, list[str]]]:
    for rule in rules:
        assert isinstance(rule.matcher, PathMatches)
        handler = rule.target
        assert issubclass(handler, RequestHandler)
        methods = [
            method
            for method in handler.SUPPORTED_METHODS
            if getattr(handler, method.lower()) is not RequestHandler._unimplemented_method
        ]
        yield rule.matcher.regex.pattern, f"{handler.__module__}.{handler.__name__}", methods


if __name__ == "__main__":
    app = GatewayApp()
    app.initialize(["--allow-root", f"--data-directory={sys.argv[1]}", f"--port={sys.argv[2]}"])
    assert app.web_app is not None
    (every_host,) = app.web_app.default_router.rules
    assert isinstance(every_host.matcher, AnyMatches)
    print(json.dumps(list(served(app.web_app.wildcard_router.rules))))
    sys.stdout.flush()
    app.core.close()
    os._exit(0)
