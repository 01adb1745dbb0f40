from __future__ import annotations

import pytest

from monktalk.common.config import Change, Config, Kind, Option, Schema, Section, parse

SCHEMA = Schema(
    [
        Section(
            ("limits",),
            "Limits.",
            (Option("idle", Kind.DURATION, "5 min"), Option("workers", Kind.INTEGER, 1, restart=True)),
        ),
        Section(("auth",), "Auth.", (Option("password", Kind.STRING, secret=True),), optional=True),
        Section(("listen", "c2s"), "C2S.", (Option("port", Kind.INTEGER, restart=True),), multiple=True),
        Section(("modules", "roster"), "Roster.", (Option("max_items", Kind.INTEGER, 9),), per_host=True),
    ]
)


def read(text: str) -> Config:
    return parse(text, "f.toml", SCHEMA)


def test_settings_do_not_change_and_name_what_they_lack():
    limits = read("").section("limits")
    with pytest.raises(AttributeError, match="'idle' cannot be set"):
        limits.idle = 1
    with pytest.raises(AttributeError, match=r"The section \[limits\] has no option 'idel'"):
        _ = limits.idel


def test_settings_compare_by_value():
    assert read("").section("limits") == read('limits.idle = "300 s"').section("limits")
    assert read("").section("limits") != read("limits.idle = 1").section("limits")
    assert read("").section("limits") != 1


def test_settings_show_their_values_but_no_secret():
    config = read('limits.idle = 1\nauth.password = "hunter2"')
    assert repr(config.section("limits")) == "Settings([limits] idle=1.0, workers=1)"
    assert repr(config.section("auth")) == "Settings([auth] password=[redacted])"


def test_a_section_that_is_not_there_is_a_key_error():
    with pytest.raises(KeyError, match=r"no section \[limit\]"):
        read("").section("limit")
    with pytest.raises(KeyError):
        read("").section("listen", "c2s")
    with pytest.raises(KeyError):
        read("").sections("limits")


def test_checks_beyond_the_schema_can_name_a_line():
    config = read('[limits]\nidle = 1\n[[listen.c2s]]\nport = 1\n[host."XN--MNCHEN-3YA.example".modules.roster]\n')
    assert str(config.problem(("limits",), "idle", "is odd")) == "f.toml:2: limits.idle: is odd"
    assert str(config.problem(("limits",), "workers", "is odd")) == "f.toml:1: limits.workers: is odd"
    assert str(config.problem(("listen", "c2s"), "port", "is taken", index=0)) == (
        "f.toml:4: listen.c2s[0].port: is taken"
    )
    assert str(config.problem(("modules", "roster"), "", "is odd", host="münchen.example")) == (
        'f.toml:5: host."XN--MNCHEN-3YA.example".modules.roster: is odd'
    )
    assert str(config.problem(("auth",), "", "is needed")) == "f.toml: auth: is needed"


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ("", "", []),
        ("limits.idle = 1", "limits.idle = 1.0", []),
        ("[limits]\nidle = 1", "[limits]\nidle = 2", [(("limits",), "idle", False)]),
        ("[limits]\nworkers = 1", "[limits]\nworkers = 2", [(("limits",), "workers", True)]),
        ("", "[limits]\nworkers = 2", [(("limits",), "", False), (("limits",), "workers", True)]),
        ("", '[auth]\npassword = "x"', [(("auth",), "", False), (("auth",), "password", False)]),
        ("[[listen.c2s]]\nport = 1", "[[listen.c2s]]\nport = 2", [(("listen", "c2s"), "port", True)]),
        (
            "[[listen.c2s]]\nport = 1",
            "[[listen.c2s]]\nport = 1\n[[listen.c2s]]\nport = 2",
            [(("listen", "c2s"), "", False)],
        ),
        (
            "host.a.modules.roster.max_items = 1",
            "host.a.modules.roster.max_items = 2\nhost.b.modules.roster.max_items = 9",
            [
                (("host", "a", "modules", "roster"), "max_items", False),
                (("host", "b", "modules", "roster"), "", False),
                (("host", "b", "modules", "roster"), "max_items", False),
            ],
        ),
    ],
)
def test_a_difference_names_sections_and_keys(before, after, changes):
    assert read(before).diff(read(after)) == [Change(*change) for change in changes]


def test_a_repeated_section_that_appears_is_one_change():
    assert read("").diff(read("[[listen.c2s]]\nport = 1")) == [Change(("listen", "c2s"), "", restart=False)]
