"""How the gateway is served: with a certificate, below a base URL, for pages of another origin."""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import websocket
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway_kit import PROGRAM, Gateway
from lab_kit import lab_of
from site_kit import PATIENCE, Site

ORIGIN = "https://lab.example"
EVIL = "https://evil.example"


def certificate_of_this_machine(directory: Path) -> tuple[Path, Path]:
    """Write a certificate that signs itself, and its key; return both paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


@pytest.fixture
def gateway(site: Site) -> Iterator[Gateway]:
    site.spec()
    certificate, key = certificate_of_this_machine(site.root)
    gateway = Gateway(site)
    gateway.authority, gateway.base_url = certificate, "/deep/down/"
    gateway.start(
        "--shutdown-kernels",
        f"--certfile={certificate}",
        f"--keyfile={key}",
        f"--ServerApp.base_url={gateway.base_url}",
        f"--ServerApp.allow_origin={ORIGIN}",
    )
    yield gateway
    assert gateway.stop(signal.SIGTERM) == 0, gateway.log.read_text()


def test_with_a_certificate_and_below_a_base_url(gateway: Gateway) -> None:
    kernel = gateway.kernel()
    with gateway.client(kernel) as client:
        assert client.run("print(6 * 7)") == "42\n"
    argv = [PROGRAM, "kernels", "list", "--json", "--ca", str(gateway.authority)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert [one["id"] for one in json.loads(done.stdout)] == [kernel], done.stderr


def test_a_lab_is_connected_by_the_line_that_is_told(
    gateway: Gateway, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ``GatewayClient.ca_certs`` counts only with a client's certificate, so Python is told."""
    monkeypatch.setenv("SSL_CERT_FILE", str(gateway.authority))
    (line,) = re.findall(r"jupyter lab (--gateway-url=.*)", gateway.log.read_text())
    assert line == f"--gateway-url={gateway.url}/ --GatewayClient.auth_token={gateway.token}"
    with lab_of(site, gateway, line=line) as lab:
        _, kernel = lab.open("one.ipynb")
        with lab.client(kernel) as client:
            assert client.run("print(1 + 1)") == "2\n"


def test_a_page_of_the_allowed_origin_is_served_and_no_other(gateway: Gateway) -> None:
    """One with a token may come from anywhere ; a cookie is what a browser adds by itself."""
    kernel = gateway.kernel()
    with urllib.request.urlopen(
        f"{gateway.url}/api/kernels?token={gateway.token}", timeout=PATIENCE, context=gateway.tls()
    ) as answer:
        cookies = "; ".join(one.partition(";")[0] for one in answer.headers.get_all("Set-Cookie"))
    url = f"wss{gateway.url.removeprefix('https')}/api/kernels/{kernel}/channels"

    def upgrade(origin: str) -> int:
        try:
            websocket.create_connection(
                url, cookie=cookies, origin=origin, timeout=PATIENCE, sslopt={"context": gateway.tls()}
            ).close()
        except websocket.WebSocketBadStatusException as error:
            return error.status_code
        return 101

    assert upgrade(ORIGIN) == 101
    assert upgrade(EVIL) == 403
    for origin in (ORIGIN, EVIL):
        request = urllib.request.Request(
            f"{gateway.url}/api/kernels", method="OPTIONS", headers={"Origin": origin}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE, context=gateway.tls()) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()
