"""A home's keys: who they admit, for how long, and where they are not left."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from elsewhere.backend import Mark
from elsewhere.identity import Identity


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str:
    """Shake hands in memory and return the protocol's version; raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(10):
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
            if not ends:
                return end.version() or ""
    raise AssertionError("the handshake does not end")


def client_of(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=identity.authority)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def test_its_certificate_stands_up_to_a_strict_check(tmp_path: Path) -> None:
    identity = Identity.create()
    server = identity.server_context(tmp_path)
    assert handshake(server, client_of(identity), identity.name) == "TLSv1.3"
    assert list(tmp_path.iterdir()) == [], "the key is not left in a file"


def test_two_homes_have_nothing_in_common() -> None:
    one, other = Identity.create(), Identity.create()
    for field in ("home_id", "authority", "certificate", "key", "name"):
        assert getattr(one, field) != getattr(other, field)


def test_a_node_whose_clock_is_behind_believes_it() -> None:
    identity = Identity.create()
    now = datetime.datetime.now(datetime.timezone.utc)
    for pem in (identity.authority, identity.certificate):
        certificate = x509.load_pem_x509_certificate(pem.encode())
        assert certificate.not_valid_before_utc <= now - datetime.timedelta(hours=23)
        assert certificate.not_valid_after_utc >= now + datetime.timedelta(days=3000)


def test_it_is_for_this_name_alone_and_cannot_sign_others() -> None:
    identity = Identity.create()
    certificate = x509.load_pem_x509_certificate(identity.certificate.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [identity.name]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    key = serialization.load_pem_private_key(identity.key.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)


def test_its_id_can_be_stamped_on_a_job_and_its_key_is_not_shown() -> None:
    identity = Identity.create()
    assert Mark.parse(str(Mark(identity.home_id, "k", 1))) is not None
    assert identity.key not in repr(identity)
    assert "PRIVATE KEY" not in repr(identity)
