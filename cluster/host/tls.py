"""Certificates by which the hosts of one master know each other.

Both sides of every connection show one that the master's authority has signed. Host names are not checked: a host is
reached through tunnels, at addresses of loopback that change, so that no name or address would say who answers.
Whoever has a certificate of the authority may thus answer for any other host of the same master.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster import paths

_DAY = datetime.timedelta(days=1)
_AUTHORITY_DAYS = 3650
_IDENTITY_DAYS = 366
_AUTHORITY = "authority.pem"
_CERTIFICATE = "certificate.pem"
_KEY = "key.pem"
_USAGES = (  # RFC 5280, 4.2.1.3
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a process is: PEM files, of mode 0600."""

    authority: Path
    """The certificate of whoever signed."""
    certificate: Path
    key: Path

    @classmethod
    def at(cls, directory: Path) -> Identity:
        """The identity whose files are in `directory`, as `Authority.issue` names them."""
        return cls(directory / _AUTHORITY, directory / _CERTIFICATE, directory / _KEY)

    def server_context(self) -> ssl.SSLContext:
        """For who listens: only those whom the authority has signed are served."""
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def client_context(self) -> ssl.SSLContext:
        """For who connects: only those whom the authority has signed are believed, by whatever name."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.authority)
        context.load_cert_chain(self.certificate, self.key)
        return context


class Authority:
    """Signs the certificates of one master's hosts; made on first use.

    DIRECTORY/                  of mode 0700
        certificate.pem key.pem the authority's own
        NAME/                   an identity: authority.pem, certificate.pem, key.pem
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with paths.locked(directory / "lock"):
            if not (directory / _CERTIFICATE).exists():
                key = ec.generate_private_key(ec.SECP256R1())
                name = _name("portage-cluster")
                _write_key(directory / _KEY, key)
                _write(directory / _CERTIFICATE, _pem(_signed(name, key.public_key(), name, key, authority=True)))
        self._own = x509.load_pem_x509_certificate((directory / _CERTIFICATE).read_bytes())
        self._key = _read_key(directory / _KEY)

    def issue(self, name: str) -> Identity:
        """A new identity for the host `name`, in the place of one that it had; good for a year."""
        directory = self._directory / name
        directory.mkdir(exist_ok=True, mode=0o700)
        identity = Identity.at(directory)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(_name(name), key.public_key(), self._own.subject, self._key, authority=False)
        with paths.locked(directory / "lock"):
            _write(identity.authority, _pem(self._own))
            _write_key(identity.key, key)
            _write(identity.certificate, _pem(certificate))
        return identity


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _signed(
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
) -> x509.Certificate:
    """A certificate as RFC 5280 wants it, for servers and clients; good from yesterday, for clocks that are behind."""
    now = datetime.datetime.now(datetime.UTC)
    days = _AUTHORITY_DAYS if authority else _IDENTITY_DAYS
    used = _usage(("key_cert_sign", "crl_sign") if authority else ("digital_signature",))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + days * _DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        .add_extension(used, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    if not authority:
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(both, critical=False)
    return builder.sign(key, hashes.SHA256())


def _usage(uses: Iterable[str]) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in uses for use in _USAGES})


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    form = serialization.PrivateFormat.PKCS8
    _write(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _write(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.chmod(0o600)  # while it is empty
        temporary.write_bytes(content)

    paths.publish(path, write)
