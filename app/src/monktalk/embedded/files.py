"""The files of an embedded run: certificate, secrets, configurations, all below the data directory."""

from __future__ import annotations

import datetime
import json
import os
import secrets
from typing import TYPE_CHECKING

import idna
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

    from monktalk.embedded.environment import Environment

_VALIDITY = datetime.timedelta(days=365)
_RENEW_BEFORE = datetime.timedelta(days=7)

_XMPP_CONFIGURATION = """\
# Written anew by every start of the embedded run.
[general]
hosts = [{domain}]
administrators = [{administrators}]
control_socket = {control_socket}
{listeners}
[tls]
certificate = {certificate}
key = {key}

[auth]
url = {auth_url}
username = "xmpp"
password_file = {password_file}

[database]
url = {database}
"""

_LISTENER = """
[[listen.c2s]]
address = {address}
port = {port}
starttls_required = {tls_required}
"""

_AUTH_CONFIGURATION = """\
# Written anew by every start of the embedded run.
[service]
port = {port}
username = "xmpp"
password_file = {password_file}

[authenticators]
directory = {authenticators}

[database]
url = {database}
"""

_AUTHENTICATOR = '''\
"""Accounts of {domain}: the table web_users. Written once; changes to this file are kept."""

from monktalk.auth.authenticators import WebUsers

authenticator = WebUsers()
'''


class Unusable(ValueError):
    """A file of an earlier run is in no order; the message names it and says what to do."""


class Files:
    """The paths of an embedded run, and the making of what is missing."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.data = environment.data
        self.certificate = self.data / "tls" / "localhost.cer"
        self.key = self.data / "tls" / "localhost.key"
        self.auth_password = self.data / "auth-password"
        self.accounts = self.data / "accounts.json"
        self.xmpp_configuration = self.data / "mongooseim.toml"
        self.auth_configuration = self.data / "auth.toml"
        self.authenticators = self.data / "externals-auth"
        self.database = self.data / "monktalk.db"
        self.control_socket = self.data / "control.sock"
        self.ready = self.data / "ready.json"
        self.xmpp_log = self.data / "log" / "ejabberd.log"
        self.auth_log = self.data / "log" / "auth.log"

    @property
    def database_url(self) -> str:
        """The database's address."""
        return f"sqlite:///{self.database}"

    def prepare(self) -> None:
        """Make what an embedded run needs.

        Raises OSError when the data directory can't be written, :class:`Unusable` for a certificate that can't be read.
        """
        for folder in (self.data, self.certificate.parent, self.authenticators, self.xmpp_log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self.data.chmod(0o700)
        self._make_certificate()
        if not self.auth_password.exists():
            write_private(self.auth_password, secrets.token_urlsafe(24))
        authenticator = self.authenticators / f"{self._environment.domain}.py"
        if not authenticator.exists():
            authenticator.write_text(_AUTHENTICATOR.format(domain=self._environment.domain), encoding="utf-8")
        write_private(self.xmpp_configuration, self._xmpp_configuration())
        write_private(self.auth_configuration, self._auth_configuration())
        self.ready.unlink(missing_ok=True)

    def _xmpp_configuration(self) -> str:
        environment = self._environment
        admin = environment.admin
        listeners = "".join(
            _LISTENER.format(
                address=_quote(environment.bind), port=port, tls_required=str(environment.tls_required).lower()
            )
            for port in environment.ports
        )
        return _XMPP_CONFIGURATION.format(
            domain=_quote(environment.domain),
            administrators=_quote(f"{admin.user}@{environment.domain}") if admin else "",
            control_socket=_quote(self.control_socket),
            listeners=listeners,
            certificate=_quote(self.certificate),
            key=_quote(self.key),
            auth_url=_quote(f"http://127.0.0.1:{environment.auth_port}"),
            password_file=_quote(self.auth_password),
            database=_quote(self.database_url),
        )

    def _auth_configuration(self) -> str:
        return _AUTH_CONFIGURATION.format(
            port=self._environment.auth_port,
            password_file=_quote(self.auth_password),
            authenticators=_quote(self.authenticators),
            database=_quote(self.database_url),
        )

    def _make_certificate(self) -> None:
        """A self-signed certificate for the domain, unless there is one that lasts."""
        now = datetime.datetime.now(datetime.UTC)
        domain = self._environment.domain
        if not domain.isascii():
            domain = idna.encode(domain).decode("ascii")
        if self.certificate.exists() and self.key.exists():
            present, names = self._present_certificate()
            if present.not_valid_after_utc - now > _RENEW_BEFORE and domain in names:
                return
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain[:64])])
        alternatives = x509.SubjectAlternativeName(
            [x509.DNSName(each) for each in dict.fromkeys((domain, "localhost"))]
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + _VALIDITY)
            .add_extension(alternatives, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(self.key, private.decode())
        self.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))

    def _present_certificate(self) -> tuple[x509.Certificate, list[str]]:
        """The certificate of an earlier run, and the names that it is for."""
        try:
            present = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            names = present.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, x509.ExtensionNotFound) as error:
            raise Unusable(f"{self.certificate} can't be used: {error}; remove it, and a new one is made") from None
        return present, names.get_values_for_type(x509.DNSName)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, in one step."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def _quote(value: object) -> str:
    """A TOML string; TOML's basic strings escape what JSON escapes."""
    return json.dumps(str(value), ensure_ascii=False)
