"""Who a home is: its id, and the certificate authority that its agents pin."""

from __future__ import annotations

import datetime
import os
import secrets
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

LIFETIME = datetime.timedelta(days=3650)
BACK_DATED = datetime.timedelta(days=1)
"""The clocks of compute nodes may be behind ours."""


@dataclass(frozen=True)
class Identity:
    """A home's id and keys, as PEM. Agents verify ``name`` against ``authority``, never an address."""

    home_id: str
    authority: str
    certificate: str
    key: str = field(repr=False)

    @property
    def name(self) -> str:
        """The name in the certificate."""
        return home_name(self.home_id)

    @classmethod
    def create(cls) -> Identity:
        """Make a new home: a random id, an authority of its own whose key is thrown away."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID

        home_id = secrets.token_hex(6)
        now = datetime.datetime.now(datetime.timezone.utc)
        authority_key = ec.generate_private_key(ec.SECP256R1())
        key = ec.generate_private_key(ec.SECP256R1())
        authority_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"elsewhere {home_id}")])

        def builder(subject: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
            return (
                x509.CertificateBuilder()
                .subject_name(subject)
                .issuer_name(authority_name)
                .public_key(public_key)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - BACK_DATED)
                .not_valid_after(now + LIFETIME)
            )

        authority = (
            builder(authority_name, authority_key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False
            )
            .sign(authority_key, hashes.SHA256())
        )
        name = home_name(home_id)
        certificate = (
            builder(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
                critical=False,
            )
            .sign(authority_key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        return cls(
            home_id=home_id,
            authority=authority.public_bytes(pem).decode(),
            certificate=certificate.public_bytes(pem).decode(),
            key=key.private_bytes(
                pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
        )

    def server_context(self, directory: Path) -> ssl.SSLContext:
        """Return the TLS context of the switchboard; ``directory`` must be private to us.

        The ssl module reads keys from files only: one exists there for a moment.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        path = directory / f"key-{secrets.token_hex(4)}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "w") as out:
                out.write(self.certificate + self.key)
            context.load_cert_chain(path)
        finally:
            path.unlink()
        return context


def home_name(home_id: str) -> str:
    """Return the name that the certificate of this home carries."""
    return f"{home_id}.home.elsewhere"


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
