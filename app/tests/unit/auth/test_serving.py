from __future__ import annotations

import pytest

from monktalk.auth import serving
from monktalk.common.config import ConfigError

MINIMAL = '[service]\npassword = "12345678"\n[database]\nurl = "sqlite:////tmp/x.db"\n'


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "_state", serving._State())
    monkeypatch.setattr(serving, "start_log", lambda config: None)
    path = tmp_path / "auth.toml"
    path.write_text(MINIMAL)
    monkeypatch.setenv(serving.VARIABLE, str(path))
    return path


def test_the_defaults_are_those_of_the_contract(file):
    config = serving.current()
    service, authenticators = config.section("service"), config.section("authenticators")
    assert (service.address, service.port) == ("127.0.0.1", 3300)
    assert str(authenticators.directory) == "/etc/mongooseim/externals-auth"
    assert (authenticators.answer, authenticators.upgrade, authenticators.scram_iterations) == ("username", True, 4096)


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (MINIMAL.replace("[service]", '[service]\naddress = "0.0.0.0"'), 2, "service.address"),
        (MINIMAL.replace("[service]", '[service]\naddress = "192.0.2.1"'), 2, "service.address"),
        (MINIMAL.replace("[service]", '[service]\naddress = "::"'), 2, "service.address"),
        (MINIMAL.replace("[service]", '[service]\nusername = "a:b"'), 2, "service.username"),
        (MINIMAL.replace("12345678", "1234567"), 2, "service.password"),
        (MINIMAL.replace("sqlite:", "mysql:"), 4, "database.url"),
        (MINIMAL + "[authenticators]\nscram_iterations = 1000\n", 6, "authenticators.scram_iterations"),
        (MINIMAL + "[authenticators]\nanswer = 'yes'\n", 6, "authenticators.answer"),
        (MINIMAL + "[log]\nfile = '/nowhere/auth.log'\n", 6, "log.file"),
    ],
)
def test_a_wrong_value_is_refused_with_its_line(file, text, line, key):
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        serving.read(file)
    assert [(problem.line, problem.key) for problem in caught.value.problems] == [(line, key)]
    assert "12345678" not in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_any_loopback_address_will_do(file, address):
    file.write_text(MINIMAL.replace("[service]", f'[service]\naddress = "{address}"'))
    assert serving.read(file).section("service").address == address


def test_the_password_may_be_in_a_file_of_its_own(file):
    (file.parent / "password").write_text("from the file\n")
    file.write_text(MINIMAL.replace('password = "12345678"', 'password_file = "password"'))
    assert serving.read(file).section("service").password == "from the file"


def test_a_reload_takes_a_good_file_and_keeps_the_former_configuration_over_a_bad_one(file, caplog):
    former = serving.current()
    file.write_text(MINIMAL.replace("12345678", "87654321"))
    assert serving.reload()
    assert serving.current() is not former
    assert serving.current().section("service").password == "87654321"
    file.write_text(MINIMAL + "[service\n")
    kept = serving.current()
    assert not serving.reload()
    assert serving.current() is kept
    problem = next(record for record in caplog.records if record.message == "invalid_configuration")
    assert problem.fields["line"] == 5
    file.unlink()
    assert not serving.reload()
    assert serving.current() is kept


def test_a_reload_names_what_waits_for_a_restart(file, caplog):
    serving.current()
    file.write_text(MINIMAL.replace("[service]", "[service]\nport = 3301"))
    assert serving.reload()
    record = next(record for record in caplog.records if record.message == "restart_needed")
    assert record.fields["options"] == ["service.port"]
