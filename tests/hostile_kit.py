"""Requests that nobody means well with: raw bytes over a socket, and strategies to make them of."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from site_kit import PATIENCE

LIVE = "{live}"
"""Stands in a request for the id of something that is there."""

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Request:
    """One request, as it is shown when it has failed."""

    method: str
    target: str
    headers: Headers = ()
    body: bytes = b""
    with_token: bool = True

    def wire(self, token: str, live: str) -> bytes:
        """Return the bytes of the request."""
        given = {name.lower() for name, _ in self.headers}
        headers = [*self.headers]
        if "host" not in given:
            headers.append(("Host", "localhost"))
        if "content-length" not in given and "transfer-encoding" not in given:
            headers.append(("Content-Length", str(len(self.body))))
        if self.with_token:
            headers.append(("Authorization", f"token {token}"))
        if "connection" not in given:
            headers.append(("Connection", "close"))
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        head = "\r\n".join([*lines, "", ""]).replace(LIVE, live)
        return head.encode("utf-8", "surrogateescape") + self.body.replace(LIVE.encode(), live.encode())


@dataclass(frozen=True)
class Answer:
    """What came back; status 0 if the connection was closed without a word."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


def send(port: int, wire: bytes, method: str) -> Answer:
    """Send what it is, and return the answer; of a stream or a websocket only the head."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        try:
            connection.sendall(wire)
        except OSError:
            pass  # it was refused before it was all said
        answer = http.client.HTTPResponse(connection, method=method)
        try:
            answer.begin()
        except ConnectionError:  # it was refused before it was all said
            return Answer(0)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        endless = answer.status == 101 or headers.get("content-type", "").startswith("text/event-stream")
        try:
            return Answer(answer.status, headers, b"" if endless else answer.read())
        except ConnectionError:
            return Answer(answer.status, headers)


# ---- strategies

NASTY_TEXTS = (
    "", " ", ".", "..", "../../etc/passwd", "/etc/passwd", "a/../..", "a\0b", "\0", "\ud800", "x\udcff",
    "ü\u202e",
    "'; DROP TABLE kernel; --", "$(touch x)", "`id`", "a\nb", "a=b", "%s%n%(x)s", "{kernel_id}", "x" * 300,
    "y" * 200_000, "a/" * 3000, "0-0-0-0-0", "00000000-0000-0000-0000-000000000000", "null", "NaN", "<b>",
    LIVE,
)  # fmt: skip

NASTY_SEGMENTS = (
    "", ".", "..", "%2e%2e", "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd", "%00", "a%00b", "%ff", "%C3%A9",
    "%ED%A0%80", "%",
    "%zz", "a" * 5000, "0-0-0-0-0", "%D9%A1-%D9%A1-%D9%A1-%D9%A1-%D9%A1", "%0d%0aX-Evil:%201", "%5c..%5c",
    "*", "é",
    "a-b-c-d-%00", "a-b-c-d-" + "e" * 4000, "a-b-c-d-%ff", "~", "kernel.json", "logo-64x64.png",
    "style/style.min.css",
    "00000000-0000-0000-0000-000000000000", "stub", "STUB", "st%75b", LIVE, "favicon.ico", "?", "//", "%2F",
)  # fmt: skip

NASTY_QUERIES = (
    "", "?", "??", "?a", "?a=%ff", "?a=%00", "?token=%ff", "?token=", "?token=x&token=y", "?session_id=%ff",
    "?session_id=%00", "?session_id=" + "s" * 5000, "?session_id={live}", "?no_track_activity=%ff",
    "?next=%00",
    "?next=//evil.example", "?next=%ff", "?next=http://[", "?next=http:[", "?next=a:b:[", "?next=\\\\x",
    "?path=%00", "?path=%ff",
    "?path=..", "?path=~x",
    "?path=" + "a/" * 2000, "?path=a&kernel={live}", "?path=a&kernel=nope", "?path=a&kernel=%ff",
    "?permissions=[]",
    "?permissions=%ff", "?permissions={%22a%22:1}", "?permissions={%22a%22:[1]}",
    "?permissions=" + "[" * 5000, "?v=%ff",
    "?user=x/name", "?download=1", "?x=" + "&x=" * 2000,
)  # fmt: skip

NASTY_HEADERS = {
    "Content-Type": ("", "text/plain", "application/json; charset=utf-16", "multipart/form-data", "\0",
                     "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "x" * 3000),
    "Content-Encoding": ("gzip", "br", "nonsense"),
    "Range": ("bytes=0-", "bytes=-1", "bytes=9-1", "bytes=a-b", "bytes=", "bytes=99999999999-", "lines=1",
        "bytes=0-0,2-3"),
    "If-None-Match": ("*", '"x"', "W/", "é", '"' * 1000),
    "If-Modified-Since": ("yesterday", "Thu, 01 Jan 1970", "Thu, 99 Foo 99999 99:99:99 GMT", "0", "é"),
    "Accept": ("", "application/json", "text/html", "*/*;q=é", "x" * 3000),
    "Accept-Language": ("", "é", "de-DE;q=nope", "../../../etc/passwd", "x" * 3000, "en;q=1;q=2,;,"),
    "Cookie": ("", "=", "username-localhost=x", "_xsrf=", '_xsrf="2|é"', "a=\\0; b=" + "c" * 3000,
        "username-localhost=2|1:0|"),
    "X-XSRFToken": ("", "2|zz|zz", "é"),
    "Host": ("", "evil.example", "[::1", "localhost:99999", "é", "a b", "%00", "[", "localhost:x"),
    "Origin": ("", "null", "http://evil.example", "http://[", "é", "http://localhost", "x" * 3000),
    "Referer": ("", "http://[", "http://evil.example/?token=x", "é"),
    "X-Forwarded-For": ("1.2.3.4, x", "é"),
    "X-Scheme": ("https", "x"),
    "X-HTTP-Method-Override": ("DELETE",),
    "Upgrade": ("websocket", "h2c", ""),
    "Connection": ("close, Upgrade", "close"),
    "Sec-WebSocket-Key": ("", "x", "dGhlIHNhbXBsZSBub25jZQ==", "é"),
    "Sec-WebSocket-Version": ("13", "8", "-1", "x", ""),
    "Sec-WebSocket-Protocol": ("", ",", "v1.kernel.websocket.jupyter.org", "x, y", "é"),
    "Sec-WebSocket-Extensions": ("permessage-deflate", "permessage-deflate; client_max_window_bits=99",
        ";;", "x"),
    "Expect": ("100-continue", "200-maybe"),
    "Access-Control-Request-Headers": ("authorization", ",,,"),
}  # fmt: skip

NASTY_BODIES = (
    b"", b" ", b"{", b"}", b"null", b"true", b"0", b"-", b'"x"', b"[]", b"[1]", b"NaN", b"1e999",
    b"\xff\xfe{}",
    b'{"name": NaN}', b'{"name": Infinity}', b'{"name": 1e400}', b'{"name": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 50_000, b"[" * 900 + b"]" * 900, b'{"name": "a", "name": "b"}', b'{"name": "\\ud800"}',
    b'{"\\ud800": 1}',
    b"a=b&c=d", b"\0", b'{"name": "stub"', b"\xef\xbb\xbf{}", '{"name": "x"}'.encode("utf-16"),
    b'{"kernel": ' + b"[" * 300,
    b'{"nmae": "stub"}', b'{"data": ' + b'{"a":' * 400 + b"1" + b"}" * 400 + b"}",
)  # fmt: skip

WEBSOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}

texts = st.one_of(st.sampled_from(NASTY_TEXTS), st.text(st.characters(), max_size=20))
segments = st.one_of(st.just(LIVE), st.sampled_from(NASTY_SEGMENTS), st.from_regex(r"\A[\w%.~-]{1,12}\Z"))
queries = st.one_of(
    st.just(""), st.just(""), st.sampled_from(NASTY_QUERIES), st.from_regex(r"\A\?[\w%=&;+]{0,20}\Z")
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), texts, st.sampled_from([10**400, -1, 2**64, 1e308])
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


def objects(fields: Mapping[str, st.SearchStrategy[object]]) -> st.SearchStrategy[object]:
    """An object that has some of these fields, each meant well or not, and others."""
    known = {name: st.one_of(well, well, values) for name, well in fields.items()}
    return st.builds(
        lambda some, more: {**more, **some},
        st.fixed_dictionaries({}, optional=known),
        st.dictionaries(texts, values, max_size=2),
    )


def bodies(fields: Mapping[str, st.SearchStrategy[object]]) -> st.SearchStrategy[bytes]:
    """JSON of such an object, of anything else, or what is no JSON."""
    spoken = st.one_of(objects(fields), objects(fields), objects(fields), values).map(_dumped)
    return st.one_of(spoken, spoken, st.sampled_from(NASTY_BODIES), st.binary(max_size=30))


def _dumped(value: object) -> bytes:
    return json.dumps(value).encode()


def _one_header(name: str) -> st.SearchStrategy[tuple[str, str]]:
    return st.tuples(st.just(name), st.sampled_from(NASTY_HEADERS[name]))


headers = st.lists(st.sampled_from(sorted(NASTY_HEADERS)).flatmap(_one_header), max_size=3).map(tuple)
upgrades = st.dictionaries(st.sampled_from(sorted(WEBSOCKET)), st.just(None), max_size=1).map(
    lambda left_out: tuple((name, value) for name, value in WEBSOCKET.items() if name not in left_out)
)
