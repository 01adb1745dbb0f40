"""The files of an embedded run."""

from __future__ import annotations

import dataclasses
import datetime
import stat
import tomllib
from pathlib import Path

import pytest
from cryptography import x509

from monktalk.auth.settings import schema as auth_schema
from monktalk.common.config import load
from monktalk.embedded import environment, files
from monktalk.embedded.files import Files, Unusable
from monktalk.xmpp import configuration
from tests.support.certificates import make_certificate


@pytest.fixture
def make(variables):
    """``make(MONKTALK_DOMAIN="…")``: the files of a run with those variables, prepared."""

    def make(**more: str) -> Files:
        found = Files(environment.read(variables | more))
        found.prepare()
        return found

    return make


def certificate(found: Files) -> x509.Certificate:
    return x509.load_pem_x509_certificate(found.certificate.read_bytes())


def names(found: Files) -> list[str]:
    extension = certificate(found).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return extension.value.get_values_for_type(x509.DNSName)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- configurations ----------------------------------------------------------------------------------------------------


def test_the_server_understands_its_configuration(make):
    found = make(MONKTALK_DOMAIN="chat.example", MONKTALK_ADMIN="boss:x", MONKTALK_TLS_REQUIRED="false")
    config = configuration.read(found.xmpp_configuration)
    general, [listener] = config.section("general"), config.sections("listen", "c2s")
    assert (general.hosts, general.administrators) == (("chat.example",), ("boss@chat.example",))
    assert general.control_socket == found.control_socket
    assert (listener.address, listener.port, listener.starttls_required) == ("127.0.0.1", 0, False)
    assert config.section("auth").password == found.auth_password.read_text()
    assert config.section("database").url == found.database_url


def test_so_does_the_authentication_service(make, variables):
    found = make()
    settings = load(found.auth_configuration, auth_schema())
    assert settings.section("service").port == int(variables["MONKTALK_PORT_AUTH"])
    assert settings.section("service").password == found.auth_password.read_text()
    assert settings.section("authenticators").directory == found.authenticators


def test_every_port_is_a_listener(variables, monkeypatch):
    settings = dataclasses.replace(environment.read(variables), ports=(5222, 80))
    found = Files(settings)
    found.prepare()
    listeners = tomllib.loads(found.xmpp_configuration.read_text())["listen"]["c2s"]
    assert [listener["port"] for listener in listeners] == [5222, 80]


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "spa ce", "smile \U0001f600", "müll"])
def test_the_data_directory_may_have_any_name(variables, tmp_path, name):
    variables["MONKTALK_DATA_DIR"] = str(tmp_path / name)
    found = Files(environment.read(variables))
    found.prepare()
    assert configuration.read(found.xmpp_configuration).section("general").control_socket == found.control_socket
    assert load(found.auth_configuration, auth_schema()).section("authenticators").directory == found.authenticators


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_nobody_else_reads_secrets(make):
    found = make()
    assert mode(found.data) == 0o700
    for path in (found.auth_password, found.key, found.xmpp_configuration, found.auth_configuration):
        assert mode(path) == 0o600


def test_secrets_and_certificate_stay_for_the_next_run(make):
    first = make()
    before = [path.read_bytes() for path in (first.auth_password, first.key, first.certificate)]
    second = make()
    assert [path.read_bytes() for path in (second.auth_password, second.key, second.certificate)] == before


def test_a_private_file_is_never_half_written(tmp_path):
    path = tmp_path / "secret"
    path.write_text("old")
    files.write_private(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_the_authenticator_of_the_domain_is_written_once(make):
    found = make()
    path = found.authenticators / "localhost.py"
    assert "WebUsers()" in path.read_text()
    path.write_text("# mine\n")
    make()
    assert path.read_text() == "# mine\n"


def test_the_ready_file_of_the_run_before_is_removed(make):
    found = make()
    found.ready.write_text("{}")
    make()
    assert not found.ready.exists()


def test_a_directory_that_can_not_be_made_is_an_error(variables, tmp_path):
    (tmp_path / "file").write_text("")
    variables["MONKTALK_DATA_DIR"] = str(tmp_path / "file" / "var")
    with pytest.raises(OSError, match="file"):
        Files(environment.read(variables)).prepare()


# -- certificate -------------------------------------------------------------------------------------------------------


def test_the_certificate_is_for_the_domain(make):
    assert names(make(MONKTALK_DOMAIN="chat.example")) == ["chat.example", "localhost"]
    assert names(make()) == ["chat.example", "localhost"]


def test_another_domain_gets_another_certificate(make):
    make()
    assert names(make(MONKTALK_DOMAIN="chat.example")) == ["chat.example", "localhost"]


def test_a_domain_in_any_script_has_a_certificate(make):
    found = make(MONKTALK_DOMAIN="münchen.example")
    assert names(found) == ["xn--mnchen-3ya.example", "localhost"]
    assert configuration.read(found.xmpp_configuration).section("general").hosts == ("münchen.example",)
    before = found.certificate.read_bytes()
    assert make(MONKTALK_DOMAIN="münchen.example").certificate.read_bytes() == before


def test_a_certificate_that_is_about_to_end_is_renewed(make, monkeypatch):
    monkeypatch.setattr(files, "_VALIDITY", datetime.timedelta(days=5))
    found = make()
    before = certificate(found).serial_number
    monkeypatch.undo()
    make()
    assert certificate(found).serial_number != before
    assert certificate(found).not_valid_after_utc > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=300)


def test_a_certificate_of_ones_own_is_kept(make):
    found = make()
    own, key = make_certificate(found.data, "own", ["localhost"])
    found.certificate.write_bytes(own.read_bytes())
    found.key.write_bytes(key.read_bytes())
    make()
    assert found.certificate.read_bytes() == own.read_bytes()


def test_a_certificate_that_can_not_be_read_is_told(make):
    found = make()
    found.certificate.write_text("nonsense")
    with pytest.raises(Unusable, match=r"localhost\.cer can't be used: .*; remove it, and a new one is made"):
        make()
