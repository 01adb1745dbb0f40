"""The options of the server's own sections."""

from __future__ import annotations

import pytest

from monktalk.common.config import ConfigError, Schema, parse, reference
from monktalk.xmpp.core.settings import CORE_SECTIONS

GENERAL = "[general]\nhosts = ['example.org']\n"


def read(text: str = ""):
    return parse(GENERAL + text, "test.toml", Schema(CORE_SECTIONS))


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [f"{problem.line}: {problem.key}" for problem in caught.value.problems]


def test_the_hosts_are_all_that_has_to_be_said():
    config = read()
    assert config.section("general").hosts == ("example.org",)
    assert config.section("general").language == "en"
    assert config.sections("listen", "c2s") == ()
    with pytest.raises(ConfigError, match="hosts"):
        parse("", "test.toml", Schema(CORE_SECTIONS))


def test_a_listener_requires_tls_unless_it_says_otherwise():
    first, second = read("[[listen.c2s]]\n[[listen.c2s]]\nport = 0\nstarttls_required = false\n").sections(
        "listen", "c2s"
    )
    assert (first.address, first.port, first.starttls_required, first.direct_tls) == ("0.0.0.0", 5222, True, True)  # noqa: S104 - the default
    assert (second.port, second.starttls_required) == (0, False)


def test_defaults_are_within_their_own_bounds():
    """A default is written as a person would write it, and goes through the same checks."""
    config = read()
    for section in CORE_SECTIONS:
        if not section.multiple:
            shown = {name: getattr(config.section(*section.path), name) for name in config.section(*section.path)}
            assert set(shown) == {option.name for option in section.options}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[limits]\nstanza_size = '9 KB'\n", "4: limits.stanza_size"),
        ("[limits]\nstanza_size_unauthenticated = 100\n", "4: limits.stanza_size_unauthenticated"),
        ("[limits]\nburst_unauthenticated = 1\n", "4: limits.burst_unauthenticated"),
        ("[limits]\nauth_attempts = 0\n", "4: limits.auth_attempts"),
        ("[limits]\nlogin_time = '0 s'\n", "4: limits.login_time"),
        ("[[listen.c2s]]\nport = 65536\n", "4: listen.c2s[0].port"),
        ("[tls]\nminimum_version = '1.1'\n", "4: tls.minimum_version"),
        ("[auth]\nmechanisms = ['DIGEST-MD5']\n", "4: auth.mechanisms"),
        ("[auth]\nurl = 'ftp://127.0.0.1'\n", "4: auth.url"),
        ("[sessions]\nresource_conflict = 'fight'\n", "4: sessions.resource_conflict"),
        ("[stream_management]\nqueue = 1\n", "4: stream_management.queue"),
        ("[general2]\nx = 1\n", "3: general2"),
        ("[tls]\ncertficate = 'x'\n", "4: tls.certficate"),
    ],
)
def test_values_that_make_no_sense_are_refused(text, place):
    assert problems(text) == [place]


@pytest.mark.parametrize("section", ["tls", "auth", "sessions", "stream_management", "contacts"])
def test_these_may_differ_between_hosts(section):
    found = next(each for each in CORE_SECTIONS if each.path == (section,))
    assert found.per_host
    assert read(f"[host.'example.org'.{section}]\n").section(section, host="example.org") is not None


@pytest.mark.parametrize("option", ["limits.rate = 1", "database.url = 'memory:'", "general.loglevel = 'debug'"])
def test_these_may_not(option):
    with pytest.raises(ConfigError, match="cannot be set for one host"):
        read(f"[host.'example.org']\n{option}\n")


def test_what_a_reload_can_not_change_says_so():
    needs_restart = {
        f"{'.'.join(section.path)}.{option.name}"
        for section in CORE_SECTIONS
        for option in section.options
        if option.restart and section.path != ("cluster",)
    }
    assert needs_restart == {
        *("general.log_file", "general.control_socket", "listen.c2s.backlog", "database.url"),
        *("limits.depth", "limits.attributes"),
    }


def test_secrets_are_not_shown():
    assert "secret" in reference(Schema(CORE_SECTIONS))
    for section, name in (("auth", "password"), ("database", "url")):
        found = next(each for each in CORE_SECTIONS if each.path == (section,))
        assert found.by_name[name].secret


def test_every_option_is_explained():
    for section in CORE_SECTIONS:
        assert section.doc
        for option in section.options:
            assert option.doc, f"{section.path}: {option.name}"
