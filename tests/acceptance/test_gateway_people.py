"""Several people at one gateway: whose kernel it is, who else may do what, and that no name is believed."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from access_kit import matrix, table, tokens
from elsewhere.gateway.access import DECISIONS
from gateway_kit import PROGRAM, Client, Gateway, gateway_of, no_jobs, routes
from site_kit import PATIENCE, STUB, Site, new_site

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- who may do what: written by this test -->", "<!-- end -->"
ENV = "import os; print(os.environ['KERNEL_USERNAME'])"

Place = tuple[Site, Gateway, dict[str, str]]
POLICY = """
[clusters.desk]
type = "local"
directory = "{}"
[clusters.desk.policy]
users = ["ada"]
groups = ["lab"]
kernels_per_user = 1
contact = "the desk"
"""
HOSTILE = ("ada", "hub", "chief", ":", "", "../ada", "$(id)", "ada\n", "%", "*", "' or 1=1 --", "null")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with new_site() as site:
        site.spec("stub", STUB)
        with gateway_of(site) as gateway:
            yield site, gateway, tokens(gateway)


def start(gateway: Gateway, token: str, **body: object) -> tuple[int, Any]:
    return gateway.ask("POST", "/api/kernels", {"name": "stub", **body}, token=token)


def listed(gateway: Gateway, token: str, what: str = "kernels") -> set[str]:
    return {one["id"] for one in gateway.ask("GET", f"/api/{what}", token=token)[1]}


def joined(gateway: Gateway, token: str, kernel: str, session: str = "") -> websocket.WebSocket:
    path = f"/api/kernels/{kernel}/channels?session_id={session or uuid.uuid4().hex}"
    url = gateway.url.replace("http", "ws", 1) + path
    return websocket.create_connection(url, header=[f"Authorization: token {token}"], timeout=PATIENCE)


def test_the_page_says_who_may_do_what(place: Place) -> None:
    """Run this file as a program to write the table anew."""
    _, gateway, _ = place
    before, _, rest = PAGE.read_text().partition(BEGIN)
    there = rest.partition(END)[0].strip().splitlines()
    assert there == table(list(matrix(gateway, "stub"))), "run python tests/acceptance/test_gateway_people.py"
    assert before


def test_every_route_has_a_decision(site: Site) -> None:
    """Of the real application: a route that a later release brings fails here, and is refused until then."""
    served = [one for one in routes(site) if one[0] not in ("/login$", "/logout$")]  # the identity provider's
    assert {handler.rpartition(".")[2] for _, handler, _ in served} == set(DECISIONS)
    undecided = [
        (method, pattern, handler)
        for pattern, handler, methods in served
        for method in methods
        if method != "OPTIONS" and method not in DECISIONS.get(handler.rpartition(".")[2], {})
    ]
    assert undecided == []


def test_who_is_nobody_may_log_in(place: Place) -> None:
    _, gateway, _ = place
    assert gateway.ask("GET", "/login", token="")[0] == 200
    assert gateway.ask("GET", "/api/kernels", token="")[0] == 403


def test_everybody_has_kernels_and_sessions_of_their_own(place: Place) -> None:
    _, gateway, by = place
    asked = {"path": "same.ipynb", "name": "same.ipynb", "type": "notebook", "kernel": {"name": "stub"}}
    made = {role: gateway.ask("POST", "/api/sessions", asked, token=by[role]) for role in ("owner", "other")}
    kernels = {role: session["kernel"]["id"] for role, (_, session) in made.items()}
    sessions = {role: session["id"] for role, (_, session) in made.items()}
    assert [status for status, _ in made.values()] == [201, 201]
    assert len(set(kernels.values())) == 2, "the same path is another name for each"
    for role in ("owner", "other"):
        assert listed(gateway, by[role]) == {kernels[role]}
        assert listed(gateway, by[role], "sessions") == {sessions[role]}
        again = gateway.ask("POST", "/api/sessions", asked, token=by[role])[1]
        assert again["id"] == sessions[role]
    assert listed(gateway, by["admin"]) >= set(kernels.values())
    assert listed(gateway, by["reader"]) == set()
    stolen = {**asked, "path": "mine.ipynb", "kernel": {"id": kernels["owner"], "name": "stub"}}
    status, session = gateway.ask("POST", "/api/sessions", stolen, token=by["other"])
    assert status == 201
    assert session["kernel"]["id"] not in kernels.values(), "as if there were none of that id"
    change = {"kernel": {"id": kernels["owner"]}}
    path = f"/api/sessions/{sessions['other']}"
    assert gateway.ask("PATCH", path, change, token=by["other"])[0] == 400
    assert start(gateway, by["other"], kernel_id=kernels["owner"])[0] == 409
    gateway.ask("DELETE", f"/api/sessions/{session['id']}", token=by["other"])
    for role in ("owner", "other"):
        assert gateway.ask("DELETE", f"/api/sessions/{sessions[role]}", token=by[role])[0] == 204


@pytest.mark.parametrize(
    ("role", "says", "status", "owner"),
    [
        ("owner", None, 201, "ada"),
        ("owner", "root", 201, "ada"),
        ("admin", "ada", 201, "chief"),
        ("service", "ada", 201, "ada"),
        ("service", None, 201, "hub"),
        ("service", "bob", 403, ""),
        ("nobody", "ada", 403, ""),
    ],
)
def test_only_a_service_says_for_whom_it_asks(
    place: Place, role: str, says: str | None, status: int, owner: str
) -> None:
    _, gateway, by = place
    env = {} if says is None else {"KERNEL_USERNAME": says}
    got, model = start(gateway, by[role], env=env)
    assert got == status, model
    if status == 201:
        detail = gateway.until_state(model["id"], "idle")
        assert detail["owner"] == owner
        gateway.ask("DELETE", f"/api/kernels/{model['id']}")


def test_the_kernel_knows_its_owner(tmp_path: Path) -> None:
    with new_site() as site:
        site.spec()
        with gateway_of(site) as gateway:
            token = tokens(gateway)["owner"]
            asked = {"name": "away", "env": {"KERNEL_USERNAME": "root"}}
            kernel = gateway.ask("POST", "/api/kernels", asked, token=token)[1]["id"]
            with gateway.client(kernel) as client:
                assert client.run(ENV) == "ada\n"
            gateway.ask("DELETE", f"/api/kernels/{kernel}")
            no_jobs(site)


def test_who_may_only_look_is_told_so_and_sees_the_output(
    place: Place,
) -> None:
    _, gateway, by = place
    kernel = start(gateway, by["owner"])[1]["id"]
    path = f"/api/kernels/{kernel}/shares/reader"
    assert gateway.ask("PUT", path, {"read_only": True}, token=by["owner"])[0] == 200
    gateway.until_state(kernel, "idle")
    owner, reader = joined(gateway, by["owner"], kernel), joined(gateway, by["reader"], kernel)
    try:
        assert "you may look at kernel" in Client(reader).run("print 1")
        assert Client(owner).run("print 2") == "0\n1\n"
        told = ""
        while "1\n" not in told:
            message = json.loads(reader.recv())
            if message["header"]["msg_type"] == "stream":
                told += message["content"]["text"]
        assert gateway.ask("DELETE", path, token=by["owner"])[0] == 204
        while reader.recv_data()[0] != websocket.ABNF.OPCODE_CLOSE:
            pass
        assert gateway.ask("GET", f"/api/kernels/{kernel}", token=by["reader"])[0] == 404
    finally:
        owner.close()
        reader.shutdown()  # it was hung up on
        gateway.ask("DELETE", f"/api/kernels/{kernel}")


def test_nobody_takes_over_the_connection_of_another(place: Place) -> None:
    """A front end that comes back by its session's id gets what it missed, and ends the older connection."""
    _, gateway, by = place
    kernel = start(gateway, by["owner"])[1]["id"]
    gateway.ask("PUT", f"/api/kernels/{kernel}/shares/reader", {"read_only": True}, token=by["owner"])
    gateway.until_state(kernel, "idle")
    owner = joined(gateway, by["owner"], kernel, "known")
    reader = joined(gateway, by["reader"], kernel, "known")
    try:
        assert Client(owner).run("print 1") == "0\n"
        assert "you may look at kernel" in Client(reader).run("print 1")
        assert Client(owner).run("print 1") == "0\n"
    finally:
        owner.close()
        reader.close()
        gateway.ask("DELETE", f"/api/kernels/{kernel}")


def test_owner_and_shares_survive_the_gateway(tmp_path: Path) -> None:
    with new_site() as site:
        site.spec("stub", STUB)
        gateway = Gateway(site)
        gateway.start()
        by = tokens(gateway)
        kernel = start(gateway, by["owner"])[1]["id"]
        gateway.until_state(kernel, "idle")
        gateway.ask("PUT", f"/api/kernels/{kernel}/shares/helper", {}, token=by["owner"])
        gateway.stop(9)
        gateway.start("--shutdown-kernels")
        gateway.until_state(kernel, "idle")
        for role, status in (("owner", 200), ("helper", 200), ("other", 404), ("admin", 200)):
            assert gateway.ask("GET", f"/api/kernels/{kernel}", token=by[role])[0] == status
        assert gateway.detail(kernel)["owner"] == "ada"
        assert gateway.stop(15) == 0


def test_a_revoked_token_is_good_no_longer_at_once(place: Place) -> None:
    _, gateway, _ = place

    def users(*words: str) -> str:
        argv = [PROGRAM, "users", *words, "--data-directory", str(gateway.data)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout

    token = users("add", "dora", "--group", "lab").strip()
    kernel = start(gateway, token)[1]["id"]
    gateway.until_state(kernel, "idle")
    connection = joined(gateway, token, kernel)
    try:
        assert Client(connection).run("print 1") == "0\n"
        assert "dora" in users("list")
        users("revoke", "dora")
        assert gateway.ask("GET", "/api/kernels", token=token)[0] == 403
        assert "you may look at kernel" in Client(connection).run("print 1")
    finally:
        connection.close()
        gateway.ask("DELETE", f"/api/kernels/{kernel}")


def test_the_site_says_who_may_have_how_much(site: Site) -> None:
    site.toml(POLICY.format(site.jobs))
    site.spec("stub", STUB, config={"cluster": "desk"})
    with gateway_of(site) as gateway:
        by = tokens(gateway)
        status, refused = start(gateway, by["other"])
        assert (status, refused["message"].partition(" (")[0]) == (403, "you may not use cluster `desk`")
        status, model = start(gateway, by["owner"])
        assert status == 201
        status, refused = start(gateway, by["owner"])
        assert status == 409
        assert "may have 1" in refused["message"]
        assert refused["message"].endswith("ask the desk")
        as_ada = {"KERNEL_USERNAME": "ada"}
        assert start(gateway, by["service"], env=as_ada)[0] == 409, "nor does a service get more for her"
        notebook = {"path": "x", "name": "x", "type": "notebook", "kernel": {"name": "stub"}}
        assert gateway.ask("POST", "/api/sessions", notebook, token=by["other"])[0] == 403
        assert start(gateway, by["admin"])[0] == 201
        assert gateway.ask("DELETE", f"/api/kernels/{model['id']}", token=by["owner"])[0] == 204
        gateway.stop(9)
        gateway.start("--shutdown-kernels")
        assert start(gateway, by["owner"])[0] == 201
        assert start(gateway, by["owner"])[0] == 409, "what was started before counts after a restart too"


WORDS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20))
NAMES = st.sampled_from(["KERNEL_USERNAME", "KERNEL_ID", "KERNEL_OWNER"])
FIELDS = st.sampled_from(["owner", "user", "username", "shares", "account"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(env=st.dictionaries(NAMES, WORDS, max_size=3), more=st.dictionaries(FIELDS, WORDS, max_size=3))
def test_no_word_makes_a_kernel_somebody_elses(
    place: Place, env: dict[str, str], more: dict[str, str]
) -> None:
    _, gateway, by = place
    status, model = start(gateway, by["other"], env=env, **more)
    if status == 201:
        assert gateway.detail(model["id"])["owner"] == "other"
        assert gateway.ask("DELETE", f"/api/kernels/{model['id']}", token=by["other"])[0] == 204
    else:
        assert status == 400, model


def main() -> None:
    with new_site() as site:
        site.spec("stub", STUB)
        with gateway_of(site) as gateway:
            before, _, rest = PAGE.read_text().partition(BEGIN)
            lines = table(list(matrix(gateway, "stub")))
            PAGE.write_text("\n".join([before + BEGIN, "", *lines, "", END + rest.partition(END)[2]]))


if __name__ == "__main__":
    main()
