"""Who may do what over HTTP, tried out: one kernel of ada's for each role, and every request about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import websocket

from elsewhere.gateway.accounts import Role
from elsewhere.gateway.people import People
from gateway_kit import Gateway
from site_kit import PATIENCE

OWNER = "ada"
ROLES = ("owner", "helper", "reader", "other", "service", "admin", "own token", "nobody")
"""ada shares each kernel with the helper and, read-only, with the reader; the service acts for ada."""
YES, HIDDEN, REFUSED, ANONYMOUS = "yes", "404", "403", "403 "


@dataclass(frozen=True)
class Request:
    """One request: its line in the table, and what is asked."""

    told: str
    method: str
    path: str
    body: object = None


KERNEL = (
    Request("see it (detail, logs, events)", "GET", "/api/kernels/{kernel}"),
    Request("", "GET", "/api/kernels/{kernel}/logs"),
    Request("see output (websocket)", "WS", "/api/kernels/{kernel}/channels"),
    Request("execute (websocket)", "EXECUTE", "/api/kernels/{kernel}/channels"),
    Request("see its session", "GET", "/api/sessions/{session}"),
    Request("interrupt", "POST", "/api/kernels/{kernel}/interrupt"),
    Request("restart", "POST", "/api/kernels/{kernel}/restart"),
    Request("see with whom it is shared", "GET", "/api/kernels/{kernel}/shares"),
    Request("share it", "PUT", "/api/kernels/{kernel}/shares/carol", {"read_only": True}),
    Request("share it no longer", "DELETE", "/api/kernels/{kernel}/shares/carol"),
    Request("rename its session", "PATCH", "/api/sessions/{session}", {"path": "b.ipynb"}),
    Request("end it", "DELETE", "/api/kernels/{kernel}"),
)
OTHERS = (
    Request("list one's own kernels and sessions", "GET", "/api/kernels"),
    Request("", "GET", "/api/sessions"),
    Request("list kernelspecs", "GET", "/api/kernelspecs"),
    Request("see the metrics", "GET", "/metrics"),
    Request("see who one is", "GET", "/api/me"),
    Request("see events of the whole server", "WS", "/api/events/subscribe"),
    Request("tell events to the whole server", "POST", "/api/events", {}),
    Request("see whether it is up", "GET", "/healthz"),
)


def tokens(gateway: Gateway) -> dict[str, str]:
    """Make the people, and return the token of each role."""
    people = People(gateway.data)
    return {
        "owner": people.add(OWNER),
        "helper": people.add("helper"),
        "reader": people.add("reader"),
        "other": people.add("other"),
        "service": people.add("hub", role=Role.SERVICE, acts_for=("ad*",)),
        "admin": people.add("chief", role=Role.ADMIN),
        "own token": gateway.token,
        "nobody": "",
    }


def asked(gateway: Gateway, token: str, request: Request, **names: str) -> str:
    """Make the request, and return what came of it."""
    path = request.path.format(**names)
    if request.method in ("WS", "EXECUTE"):
        status = _joined(gateway, token, path, execute=request.method == "EXECUTE")
    else:
        status, _ = gateway.ask(request.method, path, request.body, token=token)
    if status < 300 or (status == 400 and request.path == "/api/events"):  # the body was no event, but read
        return YES
    return {404: HIDDEN, 403: REFUSED}.get(status, str(status))


def _joined(gateway: Gateway, token: str, path: str, *, execute: bool) -> int:
    url = gateway.url.replace("http", "ws", 1) + path
    header = [f"Authorization: token {token}"] if token else []
    try:
        connection = websocket.create_connection(url, header=header, timeout=PATIENCE)
    except websocket.WebSocketBadStatusException as error:
        return int(error.status_code)
    try:
        if not execute:
            return 101
        from gateway_kit import Client

        return 403 if "you may look at kernel" in Client(connection).run("print 1") else 101
    finally:
        connection.close()


def matrix(gateway: Gateway, spec: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each line of the table: what is done, and what came of it by role."""
    by_role = tokens(gateway)
    lines: dict[str, dict[str, str]] = {}
    for role in ROLES:
        names = _kernel(gateway, by_role["owner"], spec)
        told = ""
        for request in (*KERNEL, *OTHERS):
            result = asked(gateway, by_role[role], request, **names)
            told = request.told or told
            before = lines.setdefault(told, {}).setdefault(role, result)
            assert before == result, (role, request, before, result)
            if request.method == "POST" and request.path.endswith("restart"):
                gateway.until_state(names["kernel"], "idle")
        gateway.ask("DELETE", f"/api/kernels/{names['kernel']}")
    yield from lines.items()


def _kernel(gateway: Gateway, token: str, spec: str) -> dict[str, str]:
    asked = {"path": "a.ipynb", "name": "a.ipynb", "type": "notebook", "kernel": {"name": spec}}
    status, session = gateway.ask("POST", "/api/sessions", asked, token=token)
    assert status == 201, session
    kernel = session["kernel"]["id"]
    for user, read_only in (("helper", False), ("reader", True)):
        path = f"/api/kernels/{kernel}/shares/{user}"
        assert gateway.ask("PUT", path, {"read_only": read_only}, token=token)[0] == 200
    gateway.until_state(kernel, "idle")
    return {"kernel": kernel, "session": session["id"]}


def table(lines: list[tuple[str, dict[str, str]]]) -> list[str]:
    """Return the table of the documentation."""
    rows = [["", *ROLES], ["---"] * (1 + len(ROLES))]
    rows += [[told, *(results[role] for role in ROLES)] for told, results in lines]
    return ["| " + " | ".join(cells) + " |" for cells in rows]
