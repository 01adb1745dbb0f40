"""The configuration file: its schema, and the checks that need more than one option."""

from __future__ import annotations

from pathlib import Path

import pytest

from monktalk.common.config import ConfigError
from monktalk.xmpp import configuration
from monktalk.xmpp.modules import ALL
from tests.support.certificates import make_certificate


@pytest.fixture(scope="module")
def tls(tmp_path_factory) -> str:
    certificate, key = make_certificate(tmp_path_factory.mktemp("tls"), "server", ["one.example", "two.example"])
    return f"certificate = '{certificate}'\nkey = '{key}'\n"


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "mongooseim.toml"


def read(file: Path, text: str, general: str = ""):
    file.write_text(f"[general]\nhosts = ['one.example', 'two.example']\n{general}{text}")
    return configuration.read(file)


def problems(file: Path, text: str, general: str = "") -> list[str]:
    """What is wrong, as an operator sees it, without the path of the file."""
    with pytest.raises(ConfigError) as caught:
        read(file, text, general)
    return [line.removeprefix(f"{file}") for line in str(caught.value).splitlines()]


LISTEN = "[[listen.c2s]]\nport = 5222\n"


def test_every_module_has_its_section():
    paths = {section.path for section in configuration.schema().sections}
    assert {("modules", name) for name in ALL} <= paths
    assert {("general",), ("listen", "c2s"), ("tls",), ("auth",), ("database",)} <= paths


def test_a_file_that_is_in_order(file, tls):
    config = read(file, f"{LISTEN}[tls]\n{tls}", "administrators = ['admin@one.example']\n")
    assert config.section("general").hosts == ("one.example", "two.example")
    assert config.section("modules", "roster", host="one.example").enabled


def test_a_file_that_is_not_there(file):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        configuration.read(file)


@pytest.mark.parametrize(
    ("administrator", "reason"),
    [
        ("one.example", "one.example: write user@host"),
        ("admin@one.example/desk", "admin@one.example/desk: write user@host"),
        ("admin@else.example", "admin@else.example: else.example is not in hosts"),
        ("a@b@c", "a@b@c: "),
    ],
)
def test_administrators_are_accounts_of_the_hosts(file, administrator, reason):
    [problem] = problems(file, "", f"administrators = ['{administrator}']\n")
    assert problem.startswith(f":3: general.administrators: {reason}")


def test_a_module_without_what_it_requires_is_told_for_the_host(file):
    dependent = next(name for name, module in ALL.items() if "roster" in module.requires)
    text = "[host.'two.example'.modules.roster]\nenabled = false\n"
    found = problems(file, text)
    assert len(found) == 1
    assert "two.example: module " in found[0]
    assert "requires module roster, which is not enabled" in found[0]
    assert dependent in ALL


# -- certificates ------------------------------------------------------------------------------------------------------


def test_a_listener_that_requires_tls_needs_a_certificate(file, tls):
    assert problems(file, LISTEN) == [": tls.certificate: a listener requires TLS, but there is no certificate"]
    assert read(file, f"{LISTEN}starttls_required = false\n")
    hosts = "".join(f"[host.'{name}.example'.tls]\n{tls}" for name in ("one", "two"))
    assert read(file, LISTEN + hosts)
    one = f"[host.'one.example'.tls]\n{tls}"
    assert "a listener requires TLS" in problems(file, LISTEN + one)[0]


@pytest.mark.parametrize("line", [0, 1])
def test_certificate_and_key_go_together(file, tls, line):
    [problem] = problems(file, f"[tls]\n{tls.splitlines()[line]}\n")
    assert problem.endswith("tls.certificate: certificate and key are set together")


def test_a_certificate_that_can_not_be_used_is_told(file, tmp_path, tls):
    broken = tmp_path / "broken.pem"
    broken.write_text("nonsense")
    key = tls.splitlines()[1]
    [problem] = problems(file, f"[tls]\ncertificate = '{broken}'\n{key}\n")
    assert problem.startswith(f":4: tls.certificate: certificate {broken} with key ")
    [problem] = problems(file, f"[tls]\n{tls}[host.'two.example'.tls]\ncertificate = '{broken}'\n")
    assert f"certificate {broken} with key " in problem


def test_all_that_is_wrong_is_told_at_once(file):
    found = problems(file, LISTEN, "administrators = ['x']\n")
    assert len(found) == 2
    found = problems(file, "[limits]\nrat = 1\nburst = 1\n")
    assert [line.split(": ")[1] for line in found] == ["limits.rat", "limits.burst"]
    assert "rate" in found[0]


# -- default -----------------------------------------------------------------------------------------------------------


def test_the_usual_place_unless_the_environment_names_another(monkeypatch):
    monkeypatch.delenv("MONGOOSEIM_CONFIG", raising=False)
    assert configuration.default_path() == Path("/etc/mongooseim/mongooseim.toml")
    monkeypatch.setenv("MONGOOSEIM_CONFIG", "/somewhere/else.toml")
    assert configuration.default_path() == Path("/somewhere/else.toml")


def test_a_listener_for_proxies_only_has_to_name_them(file, tls):
    text = f"{LISTEN}[[listen.c2s]]\nport = 80\nproxies_only = true\n[tls]\n{tls}"
    reason = "proxy_protocol names no proxy: nobody could connect"
    assert problems(file, text) == [f":7: listen.c2s[1].proxies_only: {reason}"]
