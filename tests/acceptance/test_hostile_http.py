"""Whatever is said to a gateway over HTTP: it answers, and never with a fault of its own.

Every route is met with nonsense in its method, path, query, headers and body. ``HOSTILE_EXAMPLES`` is the
number of requests for each route.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway_kit import Gateway, gateway_of, listed, routes
from hostile_kit import (
    LIVE,
    Answer,
    Request,
    bodies,
    headers,
    queries,
    segments,
    send,
    texts,
    upgrades,
    values,
)
from site_kit import STUB, Site, new_site

EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "40"))
ODD_METHODS = ("TRACE", "CONNECT", "PROPFIND", "get", "X" * 300)
METHODS = ("GET", "HEAD", "POST", "DELETE", "PATCH", "PUT", "OPTIONS")

KERNEL = r"(?P<kernel_id>\w+-\w+-\w+-\w+-\w+)"
SESSION = r"(?P<session_id>\w+-\w+-\w+-\w+-\w+)"
SPEC = r"(?P<kernel_name>[\w\.\-%]+)"

SERVED = {
    r"/(robots\.txt)$": ("/{}", "GET HEAD"),
    r"/(favicon\.ico)$": ("/{}", "GET HEAD"),
    r"/static/(.*)$": ("/static/{}/{}", "GET HEAD"),
    r"/api/kernels$": ("/api/kernels", "GET POST OPTIONS"),
    rf"/api/kernels/{KERNEL}$": ("/api/kernels/{}", "GET DELETE OPTIONS"),
    # That of a kernel which is there does not end; test_gateway_events.py speaks to it.
    rf"/api/kernels/{KERNEL}/events$": ("/api/kernels/0-0-0-0-0/events", "GET OPTIONS"),
    rf"/api/kernels/{KERNEL}/logs$": ("/api/kernels/{}/logs", "GET OPTIONS"),
    rf"/api/kernels/{KERNEL}/restart$": ("/api/kernels/{}/restart", "POST OPTIONS"),
    rf"/api/kernels/{KERNEL}/(?P<action>restart|interrupt)$": ("/api/kernels/{}/interrupt", "POST OPTIONS"),
    rf"/api/kernels/{KERNEL}/shares$": ("/api/kernels/{}/shares", "GET OPTIONS"),
    rf"/api/kernels/{KERNEL}/shares/(?P<user>[^/]{{1,64}})$": (
        "/api/kernels/{}/shares/{}",
        "DELETE PUT OPTIONS",
    ),
    rf"/api/kernels/{KERNEL}/channels$": ("/api/kernels/{}/channels", "GET"),
    r"/api/kernelspecs$": ("/api/kernelspecs", "GET OPTIONS"),
    rf"/api/kernelspecs/{SPEC}$": ("/api/kernelspecs/{}", "GET OPTIONS"),
    rf"/kernelspecs/{SPEC}/(?P<path>.*)$": ("/kernelspecs/{}/{}", "GET HEAD"),
    r"/api/sessions$": ("/api/sessions", "GET POST OPTIONS"),
    rf"/api/sessions/{SESSION}$": ("/api/sessions/{}", "GET DELETE PATCH OPTIONS"),
    r"/api/events$": ("/api/events", "POST OPTIONS"),
    r"/api/events/subscribe$": ("/api/events/subscribe", "GET"),
    r"/api/spec.yaml$": ("/api/spec.yaml", "GET HEAD"),
    r"/api/status$": ("/api/status", "GET OPTIONS"),
    r"/api/me$": ("/api/me", "GET PATCH OPTIONS"),
    r"/api/resolvePath$": ("/api/resolvePath", "GET OPTIONS"),
    r"/api$": ("/api", "GET OPTIONS"),
    r"/healthz$": ("/healthz", "GET OPTIONS"),
    r"/readyz$": ("/readyz", "GET OPTIONS"),
    r"/metrics$": ("/metrics", "GET"),
    r"/login$": ("/login", "GET POST"),
    r"/logout$": ("/logout", "GET"),
    r"/.*/$": ("/{}/", "GET POST PUT"),
    r"/(robots\.txt|favicon\.ico)$": ("/{}", "GET HEAD"),
    r"/$": ("/", "GET POST PUT"),
    r"(.*)$": ("/{}", ""),
}
"""Every pattern that is served: what to ask for so that it is met, and by which methods."""

TARGETS = {target: methods.split() for target, methods in SERVED.values()}

names = st.one_of(st.just("stub"), st.just("slow"), texts)
kernel = st.fixed_dictionaries({}, optional={"id": st.one_of(st.just(LIVE), texts), "name": names})
FIELDS: Mapping[str, Mapping[str, st.SearchStrategy[object]]] = {
    "/api/kernels": {
        "name": names,
        "path": texts,
        "kernel_id": st.one_of(texts, st.uuids().map(str)),
        "env": st.dictionaries(st.one_of(texts.map("KERNEL_{}".format), texts), texts, max_size=3),
    },
    "/api/sessions": {"path": texts, "name": texts, "type": texts, "kernel": kernel, "notebook": values},
    "/api/sessions/{}": {"path": texts, "name": texts, "type": texts, "kernel": kernel, "notebook": values},
    "/api/events": {
        "schema_id": st.one_of(st.just("https://events.jupyter.org/jupyter_server/kernel_actions/v1"), texts),
        "version": st.one_of(st.just("1"), st.just(1), texts),
        "data": values,
        "timestamp": texts,
    },
    "/api/kernels/{}/shares/{}": {"read_only": st.one_of(st.booleans(), values)},
    "/api/me": {"name": texts, "color": texts},
    "/login": {"password": texts},
}

FAULTS = re.compile("Uncaught exception|Exception in |Error in |Cannot send error|never (awaited|retrieved)")
"""What tornado and asyncio log of an exception that nobody expected."""


class Hostile:
    """A gateway with a kernel and a session, and a look at its log after each request."""

    def __init__(self, site: Site, gateway: Gateway) -> None:
        self._site = site
        self.gateway = gateway
        self._read = 0
        self._ids: dict[str, str] = {}

    def live(self, target: str) -> str:
        """The id of something that is there, for this route."""
        if target.startswith("/api/sessions/"):
            known = {one["id"] for one in self.gateway.ask("GET", "/api/sessions")[1]}
            if self._ids.get("session") not in known:
                body = {"path": "a", "name": "a", "type": "notebook", "kernel": {"name": "stub"}}
                self._ids["session"] = self.gateway.ask("POST", "/api/sessions", body)[1]["id"]
            return self._ids["session"]
        if self._ids.get("kernel") not in listed(self.gateway):
            self._ids["kernel"] = self.gateway.kernel("stub")
        return self._ids["kernel"]

    def meets(self, request: Request) -> Answer:
        """Send it and expect an answer that is none of a fault."""
        live = self.live(request.target) if LIVE in f"{request.target}{request.body!r}" else "0-0-0-0-0"
        wire = request.wire(self.gateway.token, live)
        answer = send(self.gateway.port, wire, request.method)
        with self.gateway.log.open("rb") as log:
            log.seek(self._read)
            said = log.read().decode(errors="replace")
            self._read = log.tell()
        assert answer.status != 500, answer
        assert answer.status in range(100, 504) or not answer.status, answer
        assert b"Traceback (most" not in answer.body
        if answer.status >= 400 and request.target.startswith("/api") and not _is_of_tornado(answer):
            assert answer.headers["content-type"].startswith("application/json"), answer
            assert answer.json()["message"]
        if answer.status == 201:
            self._remove(answer)
        assert not FAULTS.search(said), said
        return answer

    def _remove(self, answer: Answer) -> None:
        made = answer.json()
        status, _ = self.gateway.ask("DELETE", answer.headers["location"])
        assert status == 204, made


def _is_of_tornado(answer: Answer) -> bool:
    """What comes before any handler: no HTTP, no upgrade to a websocket. A sentence at most."""
    return not answer.body or (answer.status in (400, 426) and not answer.body.startswith((b"{", b"<")))


@pytest.fixture(scope="module")
def hostile() -> Iterator[Hostile]:
    with new_site() as site:
        site.spec("stub", STUB)
        site.spec("slow", (sys.executable, "-c", "import time; time.sleep(600)", "{connection_file}"))
        with gateway_of(site) as gateway:
            yield Hostile(site, gateway)


def test_nothing_else_is_served(site: Site) -> None:
    served: dict[str, list[str]] = {}
    for pattern, _, methods in routes(site):
        served.setdefault(pattern, methods)
    assert served == {pattern: methods.split() for pattern, (_, methods) in SERVED.items()}


def requests(target: str) -> st.SearchStrategy[Request]:
    """Requests to one route."""
    fields = FIELDS.get(target, {})
    count = target.count("{}")
    targets = st.tuples(st.lists(segments, min_size=count, max_size=count), queries).map(
        lambda drawn: target.format(*drawn[0]) + drawn[1]
    )
    served = st.sampled_from(TARGETS[target] or METHODS)
    return st.builds(
        Request,
        method=st.one_of(served, served, served, st.sampled_from((*METHODS, *ODD_METHODS))),
        target=targets,
        headers=st.one_of(headers, headers, upgrades),
        body=bodies(fields) if fields else st.one_of(st.just(b""), bodies({})),
        with_token=st.sampled_from((True, True, True, True, False)),
    )


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", sorted(TARGETS))
@given(data=st.data())
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
def test_no_request_is_answered_with_a_fault(hostile: Hostile, target: str, data: st.DataObject) -> None:
    hostile.meets(data.draw(requests(target), label="request"))


ID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"


def asked(hostile: Hostile, body: object, path: str = "/api/kernels", method: str = "POST") -> Answer:
    """Send JSON and expect an answer that is none of a fault."""
    return hostile.meets(Request(method, path, body=json.dumps(body).encode()))


def test_a_near_miss_is_told(hostile: Hostile) -> None:
    answer = asked(hostile, {"nmae": "stub"})
    assert answer.status == 400
    assert answer.json()["message"] == "body: nmae: unknown field (did you mean `name`?)"
    answer = asked(hostile, {"path": "../..", "type": "notebook"}, "/api/sessions")
    assert (answer.status, "body: path" in answer.json()["message"]) == (400, True)


def test_bodies_of_many_megabytes_are_refused(hostile: Hostile) -> None:
    for size, statuses in ((10, [400]), (20, [0, 400, 413])):
        answer = asked(hostile, {"name": "x" * size * 1024 * 1024})
        assert answer.status in statuses
        assert len(answer.body) < 1000
    assert hostile.gateway.ask("GET", "/healthz")[0] == 200


def test_one_id_is_one_kernel_however_often_it_is_asked_for(hostile: Hostile) -> None:
    before = len(listed(hostile.gateway))
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: hostile.gateway.kernel("stub", kernel_id=ID), range(4)))
    assert set(made) == {ID}
    assert len(listed(hostile.gateway)) == before + 1
    status, told = hostile.gateway.ask("POST", "/api/kernels", {"name": "slow", "kernel_id": ID})
    assert (status, "there already, of the kernelspec 'stub'" in told["message"]) == (409, True)
    assert hostile.gateway.ask("DELETE", f"/api/kernels/{ID}")[0] == 204


def test_a_session_of_an_unknown_kernelspec_is_no_fault(hostile: Hostile) -> None:
    body = {"path": "b", "type": "notebook", "kernel": {"name": "nobody"}}
    answer = asked(hostile, body, "/api/sessions")
    assert (answer.status, "nobody" in answer.json()["message"]) == (400, True)


def test_what_people_say_of_themselves_cannot_outgrow_a_cookie(hostile: Hostile) -> None:
    assert asked(hostile, {"name": "x" * 100_000}, "/api/me", "PATCH").status == 400


def test_unknown_methods_leave_nothing_in_the_metrics(hostile: Hostile) -> None:
    assert hostile.meets(Request("FROBNICATE", "/api/kernels")).status == 405
    assert "frobnicate" not in str(hostile.gateway.ask("GET", "/metrics")[1]).lower()


def test_an_origin_that_is_no_url_is_a_foreign_one(hostile: Hostile) -> None:
    token = hostile.gateway.token
    cookies = hostile.meets(Request("GET", "/api/me")).headers["set-cookie"].partition(";")[0]
    for origin, status in (("http://localhost", 200), ("http://evil.example", 404), ("http://[", 404)):
        headers = (("Cookie", cookies), ("Origin", origin), ("Referer", "http://localhost/"))
        assert hostile.meets(Request("GET", "/api/kernels", headers, with_token=False)).status == status
    assert token not in cookies


def test_permissions_that_are_nested_deep(hostile: Hostile) -> None:
    assert hostile.meets(Request("GET", "/api/me?permissions=" + "[" * 5000)).status == 400
