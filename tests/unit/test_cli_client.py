"""What the command line says of a gateway that is not there, or is none, or does not want us."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from elsewhere.cli import client as client_module
from elsewhere.cli.client import Client, Event, GatewayUnusable, NotThere, Target, find


@contextmanager
def server(status: int, content: bytes, reason: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """A server that answers everything so; yields its URL and the lines of the requests it had."""
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(f"{self.requestline} {self.headers['Authorization']}")
            self.send_response(status, reason)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - names that http.server looks for

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}", asked
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def client_of(url: str, token: str = "t") -> Client:
    return Client(Target(url, token, "--token"))


def told_by(ask: Callable[[], object]) -> str:
    with pytest.raises(GatewayUnusable) as caught:
        ask()
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("localhost:8888", "http://"),
        ("ftp://host/", "http://"),
        ("http://", "http://"),
        ("http://host:99999", "Port out of range"),
        ("http://host:x", "x"),
        ("http://[::1", "IPv6"),
        ("http://host/?token=x", "--token"),
        ("http://host/#x", "--token"),
    ],
)
def test_a_url_is_checked_before_it_is_asked(url: str, word: str) -> None:
    told = told_by(lambda: find(url, None))
    assert word in told
    assert repr(url) in told


def test_a_url_may_end_in_a_slash_and_have_a_base() -> None:
    assert find("https://host/base/", "t") == Target("https://host/base", "t", "--url")


class Runtime:
    """A runtime directory, as the gateways of one user leave it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def server(self, pid: int, url: str, **more: object) -> None:
        info = {"pid": pid, "url": url, "token": f"token of {url}", "data_directory": "/x", **more}
        (self.path / f"jpserver-{pid}.json").write_text(json.dumps(info))


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    return Runtime(tmp_path)


def test_without_a_gateway_it_says_how_to_have_one(runtime: Runtime) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    runtime.server(dead.pid, "http://dead/", elsewhere="1")
    runtime.server(os.getpid(), "http://another-server/")
    (runtime.path / "jpserver-1.json").write_text('{"pid": ')
    (runtime.path / "jpserver-2.json").write_text('{"elsewhere": "1", "pid": "x"}')
    (runtime.path / "jpserver-3.json").write_text("[1]")
    told = told_by(lambda: find(None, None))
    assert "`elsewhere serve`" in told
    assert "--url" in told


def test_the_one_that_runs_is_found_and_a_token_may_be_named(runtime: Runtime) -> None:
    runtime.server(os.getpid(), "http://here/base/", elsewhere="1")
    found = find(None, None)
    assert (found.url, found.token) == ("http://here/base", "token of http://here/base/")
    assert find(None, "mine").token == "mine"


def test_of_several_none_is_chosen(runtime: Runtime) -> None:
    runtime.server(os.getpid(), "http://one/", elsewhere="1")
    runtime.server(os.getppid(), "http://two/", elsewhere="1")
    told = told_by(lambda: find(None, None))
    assert "http://one" in told
    assert "http://two" in told
    assert "--url" in told


def test_a_silent_one_is_named_with_the_cause() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        told = told_by(client_of(url).kernel_ids)
    assert told == f"the gateway at {url} does not answer: [Errno 111] Connection refused"


def test_one_that_says_nothing_in_time_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "TIMEOUT", 0.0001)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "does not answer: timed out" in told_by(client_of(url).kernel_ids)


@pytest.mark.parametrize("content", [b"<html>", b"{}", b"3", b'[{"name": "x"}]', b"[1]", b"\xff"])
def test_another_server_is_no_gateway(content: bytes) -> None:
    with server(200, content) as (url, _):
        assert told_by(client_of(url).kernel_ids) == f"what answers at {url} is no gateway of elsewhere"


def test_a_page_that_is_missing_is_told_from_a_kernel_that_is() -> None:
    with server(404, b"<html>not found") as (url, _):
        assert "is no gateway" in told_by(client_of(url).kernel_ids)
    with (
        server(404, b'{"message": "Kernel does not exist: k"}') as (url, _),
        pytest.raises(NotThere, match="Kernel does not exist: k"),
    ):
        client_of(url).ask("GET", "api", "kernels", "k")


@pytest.mark.parametrize("code", [401, 403])
def test_a_wrong_token_is_told_from_none(code: int) -> None:
    with server(code, b'{"message": "Forbidden"}') as (url, _):
        assert "does not take the token from --token" in told_by(client_of(url, "wrong").kernel_ids)
        assert "ELSEWHERE_TOKEN" in told_by(client_of(url, "").kernel_ids)


@pytest.mark.parametrize("token", ["a\nX-Injected: 1", "käse", "a\0"])
def test_a_token_that_no_header_takes_is_refused_without_being_shown(token: str) -> None:
    with server(200, b"[]") as (url, asked):
        told = told_by(client_of(url, token).kernel_ids)
    assert "characters that no token has" in told
    assert token not in told
    assert asked == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"message": "the kernel is pending"}', "the kernel is pending"),
        (b'{"message": "", "reason": "the cluster is full"}', "the cluster is full"),
        (b"{}", "Conflict"),
        (b"<html>", "Conflict"),
        (b"[]", "Conflict"),
        (b"", "Conflict"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_the_gateway(content: bytes, said: str) -> None:
    with server(409, content) as (url, _):
        assert told_by(lambda: client_of(url).ask("POST", "api", "kernels", "k", "interrupt")) == said


def test_what_names_a_kernel_cannot_name_another_path() -> None:
    with server(204, b"") as (url, asked):
        assert client_of(url).ask("DELETE", "api", "kernels", "../?x=1#y z", lines="1&2") is None
    assert asked == ["DELETE /api/kernels/..%2F%3Fx%3D1%23y%20z?lines=1%262 HTTP/1.1 token t"]


def test_events_are_read_as_they_come_and_comments_are_passed_over() -> None:
    stream = b': beat\n\nevent: kernel\ndata: {"a":\ndata: 1}\n\ndata:2\r\n\r\nevent: end\ndata: {}\n\n'
    with server(200, stream) as (url, _):
        assert list(client_of(url).events("events")) == [
            Event("kernel", {"a": 1}),
            Event("message", 2),
            Event("end", {}),
        ]


def test_an_event_that_is_no_json_is_none_of_a_gateway() -> None:
    with server(200, b"data: {\n\n") as (url, _):
        assert "is no gateway" in told_by(lambda: list(client_of(url).events("events")))


def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("")
    for path in (empty, tmp_path / "none.pem"):
        told = told_by(lambda path=path: Client(Target("https://host", "t", "--url"), ca=str(path)))  # type: ignore[misc]
        assert f"--ca {path}" in told
