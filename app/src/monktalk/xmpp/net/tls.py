"""TLS on memory buffers: one record layer for streams that start in clear and for those that start with TLS.

:class:`ssl.SSLObject` between two memory BIOs needs a tenth of the memory of asyncio's own TLS, and lets a
connection gather its output before it is encrypted.
"""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import idna
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from monktalk.common.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from monktalk.common.config import Config, Settings

log = get_logger(__name__)

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_READ_SIZE = 16384
ALPN = ["xmpp-client"]
COMMON = "*"


class TlsError(ValueError):
    """A certificate or key that can't be used; the message names the file and says why."""


class Certificate:
    """A loaded certificate: its context, its end-point binding, and when it ends."""

    __slots__ = ("context", "end_point", "not_after", "path")

    def __init__(self, settings: Settings) -> None:
        certificate, key = settings.certificate, settings.key
        self.path = Path(certificate)
        try:
            self.context = _context(settings, str(certificate), str(key))
            leaf = x509.load_pem_x509_certificate(self.path.read_bytes())
        except (OSError, ssl.SSLError, ValueError) as error:
            raise TlsError(f"certificate {certificate} with key {key} can't be used: {error}") from None
        self.end_point = _end_point(leaf)
        self.not_after: datetime = leaf.not_valid_after_utc


def _context(settings: Settings, certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.minimum_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(settings.ciphers)
    context.set_alpn_protocols(ALPN)
    # With a password given, which plain keys ignore, OpenSSL refuses an encrypted key instead of asking the terminal.
    context.load_cert_chain(certificate, key, password="")
    return context


def _end_point(leaf: x509.Certificate) -> bytes:
    """The channel binding tls-server-end-point (RFC 5929 section 4.1)."""
    algorithm = leaf.signature_hash_algorithm
    name = algorithm.name if algorithm is not None else "sha256"
    if name in ("md5", "sha1"):
        name = "sha256"
    return hashlib.new(name, leaf.public_bytes(Encoding.DER)).digest()


def read_certificates(config: Config) -> dict[str, Certificate]:
    """The certificates of a configuration: those of single hosts by domain, the common one under ``*``.

    Raises :class:`TlsError` for the first that can't be used.
    """
    common = config.section("tls")
    found = {COMMON: Certificate(common)} if common.certificate else {}
    for domain in config.section("general").hosts:
        settings = config.section("tls", host=domain)
        if settings.certificate and settings != common:
            found[domain] = Certificate(settings)
    return found


def _server_name(domain: str) -> str:
    """The domain as clients name it in a handshake (RFC 6066 section 3)."""
    return domain if domain.isascii() else idna.encode(domain).decode("ascii")


class TlsContexts:
    """The certificates of all hosts; handshakes choose by the name that the client asks for."""

    def __init__(self) -> None:
        self._default: Certificate | None = None
        self._by_host: dict[str, Certificate] = {}
        self._by_name: dict[str, Certificate] = {}
        self._by_context: dict[ssl.SSLContext, Certificate] = {}

    @property
    def available(self) -> bool:
        """There is a certificate."""
        return self._default is not None or bool(self._by_host)

    def load(self, config: Config) -> None:
        """Read all certificates anew. Raises :class:`TlsError`, and then everything stays as it was."""
        self.use(read_certificates(config))

    def use(self, certificates: Mapping[str, Certificate]) -> None:
        """Take these from now on; connections that have theirs keep them. See :func:`read_certificates`."""
        self._by_host = dict(certificates)
        common = self._by_host.pop(COMMON, None)
        self._default = common or next(iter(self._by_host.values()), None)
        self._by_name = {_server_name(domain): certificate for domain, certificate in self._by_host.items()}
        self._by_context = {certificate.context: certificate for certificate in certificates.values()}
        if self._default is not None:
            self._default.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        certificate = self._by_name.get((name or "").lower())
        if certificate is not None:
            connection.context = certificate.context

    def certificates(self) -> dict[str, Certificate]:
        """The certificates in use, by host; the default one under ``*``."""
        found = dict(self._by_host)
        if self._default is not None:
            found[COMMON] = self._default
        return found

    def wrap(self) -> TlsLayer:
        """A layer for a new connection. Raises :class:`TlsError` when there is no certificate."""
        if self._default is None:
            raise TlsError("there is no certificate: set [tls] certificate and key")
        return TlsLayer(self._default.context, self)

    def end_point(self, context: ssl.SSLContext) -> bytes | None:
        """The end-point binding of the certificate that a handshake used; None when it has been replaced since."""
        certificate = self._by_context.get(context)
        return certificate.end_point if certificate is not None else None


class TlsLayer:
    """TLS of one connection. ``established`` is set when the handshake is over."""

    __slots__ = ("_bindings", "_incoming", "_object", "_outgoing", "_owner", "established")

    def __init__(self, context: ssl.SSLContext, owner: TlsContexts) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._owner = owner
        self._bindings: dict[str, bytes] = {}
        self.established = False

    def decrypt(self, data: bytes) -> bytes | None:
        """Take bytes from the network; returns what they hold, or None when the peer has ended TLS.

        Raises :class:`ssl.SSLError`. Output of TLS itself may be waiting afterwards, see :meth:`outgoing`.
        """
        incoming = self._incoming
        incoming.write(data)
        if not self.established and not self._handshake():
            return b""
        connection = self._object
        try:
            # What comes out is shorter than what went in, unless a record was begun before.
            first = connection.read(len(data))
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLZeroReturnError:
            return None
        if not first:
            return None
        if not incoming.pending and not connection.pending():
            return first
        return first + self._read_rest()

    def _read_rest(self) -> bytes:
        parts = []
        try:
            while self._incoming.pending or self._object.pending():
                part = self._object.read(_READ_SIZE)
                if not part:
                    break
                parts.append(part)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            log.debug("tls_read_stopped")  # a record is not complete, or the end is found again at the next read
        return b"".join(parts)

    def _handshake(self) -> bool:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.established = True
        end_point = self._owner.end_point(self._object.context)
        if end_point is not None:
            self._bindings["tls-server-end-point"] = end_point
        return True

    def encrypt(self, data: bytes) -> bytes:
        """The bytes to send for ``data``, handshake output that is waiting included."""
        self._object.write(data)
        return self._outgoing.read()

    @property
    def has_output(self) -> bool:
        """Whether output of the handshake or of TLS itself is waiting."""
        return self._outgoing.pending > 0

    def outgoing(self) -> bytes:
        """Output of the handshake or of TLS itself."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def shutdown(self) -> bytes:
        """The closing alert."""
        with contextlib.suppress(ssl.SSLError):  # the peer's own closing alert has not come, and nobody waits for it
            self._object.unwrap()
        return self.outgoing()

    def bindings(self) -> dict[str, bytes]:
        """Channel bindings by type (RFC 5929, RFC 9266), as far as the TLS library gives them."""
        exporter = getattr(self._object, "export_keying_material", None)
        if exporter is not None and "tls-exporter" not in self._bindings and self._object.version() == "TLSv1.3":
            self._bindings["tls-exporter"] = exporter(b"EXPORTER-Channel-Binding", 32, b"")
        return self._bindings

    @property
    def version(self) -> str:
        """The TLS version, for the log."""
        return self._object.version() or "?"
