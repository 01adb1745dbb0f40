"""Certificates, and TLS on memory buffers."""

from __future__ import annotations

import hashlib
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from monktalk.common.config import Schema, parse
from monktalk.xmpp.core.settings import GENERAL, TLS
from monktalk.xmpp.net.tls import TlsContexts, TlsError, TlsLayer, read_certificates
from tests.support.certificates import make_certificate

HOSTS = ["one.example", "two.example"]


@pytest.fixture
def make(tmp_path):
    """``make("name", "host", …)``: a certificate for those hosts; returns the two lines of the configuration."""

    def make(name: str, *hosts: str) -> str:
        path, key = make_certificate(tmp_path, name, list(hosts))
        return f"certificate = '{path}'\nkey = '{key}'\n"

    return make


def read(text: str):
    general = f"[general]\nhosts = {HOSTS}\n"
    return parse(general + text, "test.toml", Schema([GENERAL, TLS]))


def contexts(text: str) -> TlsContexts:
    found = TlsContexts()
    found.load(read(text))
    return found


class Peer:
    """The client's end of a connection that is nothing but two buffers."""

    def __init__(self, name: str = HOSTS[0], *, version: ssl.TLSVersion | None = None) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if version is not None:
            context.maximum_version = context.minimum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    def handshake(self, layer: TlsLayer) -> None:
        """Exchange messages until both sides are content."""
        for _ in range(10):
            try:
                self.tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            sent = self.outgoing.read()
            if sent:
                assert layer.decrypt(sent) == b""
            self.incoming.write(layer.outgoing())
            if done and layer.established:
                return
        raise AssertionError("the handshake does not end")

    def sends(self, data: bytes) -> bytes:
        """The records for ``data``."""
        self.tls.write(data)
        return self.outgoing.read()

    def certificate(self) -> bytes:
        """The certificate of the server, DER."""
        found = self.tls.getpeercert(binary_form=True)
        assert found is not None
        return found

    def names(self) -> list[str]:
        """The names in it."""
        loaded = x509.load_der_x509_certificate(self.certificate())
        return loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.DNSName
        )


@pytest.fixture
def connected(make):
    """Both ends of an established connection."""
    peer, layer = Peer(), contexts("[tls]\n" + make("server", *HOSTS)).wrap()
    peer.handshake(layer)
    return peer, layer


# -- certificates ------------------------------------------------------------------------------------------------------


def test_without_a_certificate_there_is_no_tls():
    tls = contexts("")
    assert not tls.available
    assert tls.certificates() == {}
    with pytest.raises(TlsError, match=r"set \[tls\] certificate and key"):
        tls.wrap()


def test_one_certificate_may_do_for_all_hosts(make):
    tls = contexts("[tls]\n" + make("server", *HOSTS))
    assert tls.available
    assert list(tls.certificates()) == ["*"]
    for host in (*HOSTS, "else.example"):
        peer = Peer(host)
        peer.handshake(tls.wrap())
        assert peer.names() == HOSTS


def test_a_host_may_have_its_own(make):
    tls = contexts(f"[tls]\n{make('common', 'common.example')}[host.'two.example'.tls]\n{make('two', 'two.example')}")
    assert sorted(tls.certificates()) == ["*", "two.example"]
    for asked, given in (
        *(("two.example", "two.example"), ("TWO.example", "two.example")),
        *(("one.example", "common.example"), ("127.0.0.1", "common.example")),
    ):
        peer = Peer(asked)
        peer.handshake(tls.wrap())
        assert peer.names() == [given]


def test_a_host_in_any_script_is_found_by_the_name_that_clients_send(make):
    text = "[general]\nhosts = ['one.example', 'münchen.example']\n[tls]\n" + make("common", "common.example")
    text += f"[host.'münchen.example'.tls]\n{make('idn', 'xn--mnchen-3ya.example')}"
    tls = TlsContexts()
    tls.load(parse(text, "test.toml", Schema([GENERAL, TLS])))
    assert sorted(tls.certificates()) == ["*", "münchen.example"]
    peer = Peer("xn--mnchen-3ya.example")
    peer.handshake(tls.wrap())
    assert peer.names() == ["xn--mnchen-3ya.example"]


def test_every_host_may_have_its_own_and_the_first_serves_clients_that_name_none(make):
    tls = contexts("".join(f"[host.'{host}'.tls]\n{make(host, host)}" for host in HOSTS))
    assert tls.available
    peer = Peer("127.0.0.1")
    peer.handshake(tls.wrap())
    assert peer.names() == [HOSTS[0]]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda certificate, _key: certificate.unlink(), "No such file"),
        (lambda _certificate, key: key.unlink(), "No such file"),
        (lambda certificate, _key: certificate.write_text("nonsense"), "PEM"),
        (lambda _certificate, key: key.write_text("nonsense"), ""),
    ],
)
def test_what_can_not_be_used_is_told_with_both_files(tmp_path, spoil, reason):
    certificate, key = make_certificate(tmp_path, "server", HOSTS)
    spoil(certificate, key)
    with pytest.raises(TlsError) as caught:
        read_certificates(read(f"[tls]\ncertificate = '{certificate}'\nkey = '{key}'\n"))
    assert str(caught.value).startswith(f"certificate {certificate} with key {key} can't be used: ")
    assert reason in str(caught.value)


def test_a_key_of_another_certificate_is_refused(tmp_path):
    certificate, _ = make_certificate(tmp_path, "one", HOSTS)
    _, key = make_certificate(tmp_path, "other", HOSTS)
    with pytest.raises(TlsError, match="mismatch"):
        read_certificates(read(f"[tls]\ncertificate = '{certificate}'\nkey = '{key}'\n"))


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path):
    certificate, key = make_certificate(tmp_path, "server", HOSTS)
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    encrypted = loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
    key.write_bytes(encrypted)
    with pytest.raises(TlsError, match="can't be used"):
        read_certificates(read(f"[tls]\ncertificate = '{certificate}'\nkey = '{key}'\n"))


def test_a_broken_certificate_leaves_the_old_ones_in_use(make, tmp_path):
    tls = contexts("[tls]\n" + make("old", "old.example"))
    broken = make("broken", "broken.example")
    (tmp_path / "broken.pem").write_text("nonsense")
    text = f"[tls]\n{make('new', 'new.example')}[host.'two.example'.tls]\n{broken}"
    with pytest.raises(TlsError):
        tls.load(read(text))
    for name in HOSTS:
        peer = Peer(name)
        peer.handshake(tls.wrap())
        assert peer.names() == ["old.example"]


def test_a_handshake_that_has_begun_ends_with_the_old_certificate(make):
    tls = contexts("[tls]\n" + make("old", "old.example"))
    layer = tls.wrap()
    tls.load(read("[tls]\n" + make("new", "new.example")))
    peer = Peer()
    peer.handshake(layer)
    assert peer.names() == ["old.example"]
    assert layer.bindings() == {}
    peer = Peer()
    peer.handshake(tls.wrap())
    assert peer.names() == ["new.example"]


def test_when_a_certificate_ends_can_be_asked(make):
    [certificate] = contexts("[tls]\n" + make("server", *HOSTS)).certificates().values()
    assert certificate.not_after.tzinfo is not None
    assert certificate.path.name == "server.pem"


# -- versions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minimum", "version", "welcome"),
    [
        ("1.2", ssl.TLSVersion.TLSv1_2, True),
        ("1.2", ssl.TLSVersion.TLSv1_3, True),
        ("1.3", ssl.TLSVersion.TLSv1_2, False),
        ("1.3", ssl.TLSVersion.TLSv1_3, True),
    ],
)
def test_the_oldest_version_is_configured(make, minimum, version, welcome):
    layer = contexts(f"[tls]\nminimum_version = '{minimum}'\n{make('server', *HOSTS)}").wrap()
    peer = Peer(version=version)
    if welcome:
        peer.handshake(layer)
        assert layer.version == version.name.replace("_", ".")
    else:
        with pytest.raises(ssl.SSLError):
            peer.handshake(layer)


# -- records -----------------------------------------------------------------------------------------------------------


def test_both_sides_talk(connected):
    peer, layer = connected
    assert layer.decrypt(peer.sends(b"<message/>")) == b"<message/>"
    peer.incoming.write(layer.encrypt(b"<presence/>"))
    assert peer.tls.read() == b"<presence/>"


def test_several_records_may_come_at_once(connected):
    peer, layer = connected
    records = peer.sends(b"a" * 16384) + peer.sends(b"b") + peer.sends(b"c" * 40000)
    assert layer.decrypt(records) == b"a" * 16384 + b"b" + b"c" * 40000


def test_a_record_may_come_in_pieces(connected):
    peer, layer = connected
    record = peer.sends(b"<message/>") + peer.sends(b"<presence/>")
    found = b""
    for index in range(len(record)):
        piece = layer.decrypt(record[index : index + 1])
        assert piece is not None
        found += piece
    assert found == b"<message/><presence/>"


@pytest.mark.parametrize("cut", [1, 5, 100, 20_000])
def test_a_long_record_may_be_cut_anywhere(connected, cut):
    peer, layer = connected
    data = bytes(range(256)) * 160
    records = peer.sends(data)
    assert layer.decrypt(records[:cut]) + layer.decrypt(records[cut:]) == data


def test_the_end_of_tls_is_told_behind_what_came_before(connected):
    peer, layer = connected
    last = peer.sends(b"<message/>")
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    assert layer.decrypt(last + peer.outgoing.read()) == b"<message/>"
    assert layer.decrypt(b"") is None


def test_the_end_of_tls_alone_is_told(connected):
    peer, layer = connected
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    assert layer.decrypt(peer.outgoing.read()) is None


def test_what_is_no_record_is_an_error(connected):
    _, layer = connected
    with pytest.raises(ssl.SSLError):
        layer.decrypt(b"<message from='nobody'/>")


def test_the_server_can_end_tls(connected):
    peer, layer = connected
    peer.incoming.write(layer.encrypt(b"<message/>") + layer.shutdown())
    assert (peer.tls.read(), peer.tls.read()) == (b"<message/>", b"")


def test_a_handshake_can_be_abandoned(make):
    layer = contexts("[tls]\n" + make("server", *HOSTS)).wrap()
    assert not layer.established
    assert layer.shutdown() == b""


def test_output_of_tls_itself_is_waiting_until_it_is_taken(make):
    layer = contexts("[tls]\n" + make("server", *HOSTS)).wrap()
    peer = Peer()
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    layer.decrypt(peer.outgoing.read())
    assert layer.has_output
    assert layer.outgoing() != b""
    assert not layer.has_output
    assert layer.outgoing() == b""


# -- channel bindings --------------------------------------------------------------------------------------------------


def test_the_end_point_binding_is_the_hash_of_the_certificate(connected):
    peer, layer = connected
    assert layer.bindings()["tls-server-end-point"] == hashlib.sha256(peer.certificate()).digest()


def test_it_is_that_of_the_certificate_that_the_client_has_got(make):
    text = f"[tls]\n{make('common', 'common.example')}[host.'two.example'.tls]\n{make('two', 'two.example')}"
    tls = contexts(text)
    for name in ("one.example", "two.example"):
        peer, layer = Peer(name), tls.wrap()
        peer.handshake(layer)
        assert layer.bindings()["tls-server-end-point"] == hashlib.sha256(peer.certificate()).digest()


def test_both_ends_agree_on_the_exporter_where_the_library_has_it(connected):
    peer, layer = connected
    exporter = getattr(peer.tls, "export_keying_material", None)
    if exporter is None:
        assert list(layer.bindings()) == ["tls-server-end-point"]
    else:
        assert layer.bindings()["tls-exporter"] == exporter(b"EXPORTER-Channel-Binding", 32, b"")


def test_there_are_none_before_the_handshake(make):
    assert contexts("[tls]\n" + make("server", *HOSTS)).wrap().bindings() == {}
