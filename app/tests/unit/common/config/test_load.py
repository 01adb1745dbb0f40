from __future__ import annotations

from pathlib import Path

import pytest

from monktalk.common.config import Config, ConfigError, Kind, Option, Problem, Schema, Section, load, parse

SCHEMA = Schema(
    [
        Section((), "Top.", (Option("hosts", Kind.DOMAINS, minimum=1),)),
        Section(
            ("limits",),
            "Limits.",
            (
                Option("stanza_size", Kind.SIZE, "256 KiB", minimum="10 KiB"),
                Option("idle", Kind.DURATION, "5 min"),
            ),
        ),
        Section(
            ("auth",),
            "Auth.",
            (
                Option("url", Kind.URL),
                Option("password", Kind.STRING, secret=True, minimum=3),
            ),
            optional=True,
        ),
        Section(
            ("listen", "c2s"),
            "Listeners.",
            (
                Option("port", Kind.INTEGER, minimum=0, maximum=65535),
                Option("certificate", Kind.PATH, "ca.cer"),
            ),
            multiple=True,
        ),
        Section(("modules", "roster"), "Roster.", (Option("max_items", Kind.INTEGER, 1000),), per_host=True),
        Section(("modules", "push"), "Push.", (Option("url", Kind.URL),), per_host=True, optional=True),
    ]
)


def read(text: str) -> Config:
    return parse(text, "mongooseim.toml", SCHEMA)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value).split("\n") == [str(problem) for problem in caught.value.problems]
    return [str(problem).removeprefix("mongooseim.toml:") for problem in caught.value.problems]


def test_values_and_defaults_are_attributes():
    config = read('hosts = ["Example.org"]\n[limits]\nstanza_size = "1 MiB"\n')
    assert config.section().hosts == ("example.org",)
    assert config.section("limits").stanza_size == 1024**2
    assert config.section("limits").idle == 300.0
    assert list(config.section("limits")) == ["stanza_size", "idle"]
    assert config.section("modules", "roster").max_items == 1000


def test_repeated_sections_keep_their_order():
    config = read('hosts = ["a"]\n[[listen.c2s]]\nport = 5222\n[[listen.c2s]]\nport = 80\ncertificate = "x.cer"\n')
    assert [listener.port for listener in config.sections("listen", "c2s")] == [5222, 80]
    assert [listener.certificate for listener in config.sections("listen", "c2s")] == [
        Path("ca.cer"),
        Path("x.cer"),
    ]
    assert read('hosts = ["a"]').sections("listen", "c2s") == ()


def test_a_host_overrides_some_options_and_keeps_the_others():
    config = read(
        'hosts = ["a", "münchen.example"]\n'
        "[modules.roster]\nmax_items = 5\n"
        '[host."xn--mnchen-3ya.example".modules.roster]\nmax_items = 7\n'
        "[host.a.modules.roster]\n"
    )
    assert config.hosts == ("münchen.example", "a")
    assert config.section("modules", "roster", host="münchen.example").max_items == 7
    assert config.section("modules", "roster", host="a").max_items == 5
    assert config.section("modules", "roster", host="elsewhere.example").max_items == 5
    assert config.section("modules", "roster").max_items == 5
    assert config.section("limits", host="a").idle == 300.0


def test_an_optional_section_may_be_missing_or_be_there_for_one_host():
    config = read('hosts = ["a"]\n[host.a.modules.push]\nurl = "http://push/"\n')
    assert not config.present("auth")
    assert not config.present("modules", "push")
    assert config.present("modules", "push", host="a")
    assert config.section("modules", "push", host="a").url == "http://push/"
    with pytest.raises(KeyError, match=r"no section \[modules.push\]"):
        config.section("modules", "push")
    with pytest.raises(KeyError):
        config.section("modules", "push", host="b")


def test_what_is_in_the_file_is_present():
    config = read('hosts = ["a"]\n[limits]\n[[listen.c2s]]\nport = 1\n')
    assert config.present("limits")
    assert config.present("listen", "c2s")
    assert not config.present("modules", "roster")


def test_all_problems_are_told_with_line_and_key():
    assert problems(
        "hosts = []\n"
        "hots = 1\n"
        "[limits]\n"
        'stanza_size = "1 KiB"\n'
        "stanza_sise = 1\n"
        "[[listen.c2s]]\n"
        "port = 1\n"
        "[[listen.c2s]]\n"
        "prt = 1\n"
        "[auth]\n"
        'url = "x"\n'
        "[lmits]\n"
        "[modules.roster]\n"
        "max_items = true\n"
        '[host."B.example".limits]\n'
        "idle = 1\n"
        '[host."B.example".modules.roster]\n'
        'max_items = "many"\n'
        '[host."a b"]\n'
        '[host."b.example".modules.roster]\n'
    ) == [
        "1: hosts: must be at least 1 item",
        '2: hots: unknown option; did you mean "hosts"?',
        "4: limits.stanza_size: must be at least 10 KiB",
        '5: limits.stanza_sise: unknown option; did you mean "stanza_size"?',
        "8: listen.c2s[1].port: is missing",
        '9: listen.c2s[1].prt: unknown option; did you mean "port"?',
        "10: auth.password: is missing",
        "11: auth.url: must be a URL like http://127.0.0.1:3300/",
        '12: lmits: unknown section; did you mean "limits"?',
        "14: modules.roster.max_items: must be a whole number",
        '16: host."B.example".limits.idle: cannot be set for one host',
        '18: host."B.example".modules.roster.max_items: must be a whole number',
        (
            "19: host.\"a b\": does not name a host: The domainpart 'a b' is not a domain name: "
            "Codepoint U+0020 at position 2 of 'a b' not allowed."
        ),
        '20: host."b.example": is the host b.example for the second time',
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("limits = 5", "1: limits: must be a section, [limits]"),
        ("[listen.c2s]\nport = 1", "1: listen.c2s: must be written as [[listen.c2s]], once for each"),
        ("[[limits]]", "1: limits: must be a section, [limits]"),
        ("host = 1", '1: host: must be sections like [host."example.org".modules.roster]'),
        ("[host]\na = 1", '2: host.a: must be sections like [host."a".modules.roster]'),
        ("[[host.a.listen.c2s]]", "1: host.a.listen.c2s: cannot be set for one host"),
        ("[host.a.host.b]", '1: host.a.host: unknown section; did you mean "hosts"?'),
        ("[host.a.modules.push]", "1: host.a.modules.push.url: is missing"),
        ("[modules.rooster]", '1: modules.rooster: unknown section; did you mean "roster"?'),
        ("[zzz]", "1: zzz: unknown section"),
    ],
)
def test_a_section_in_a_wrong_shape_is_a_problem(text, problem):
    # `hosts` comes last, as a dotted key cannot: so the problem of its absence is expected instead.
    assert problems(text) == [" hosts: is missing", problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hosts = [\n  1,\n  2\n", "3: not valid TOML: Unclosed array"),
        ("[limits]\nidle = \n", "2: idle: not valid TOML: Invalid value"),
        ("[limits]\nidle = 1\nidle = 2", "3: idle: not valid TOML: Cannot overwrite a value"),
        ("[limits\n", "1: not valid TOML: Expected ']' at the end of a table declaration"),
    ],
)
def test_a_syntax_error_has_its_line(text, problem):
    assert problems(text) == [problem]


def test_lines_are_right_with_either_line_end():
    assert problems('hosts = ["a"]\r\n\r\n[limits]\r\nidle = "x"\r\n')[0].startswith("4: limits.idle: ")


def test_a_problem_without_a_line_names_the_file():
    assert str(Problem("a.toml", 0, "", "cannot be read")) == "a.toml: cannot be read"
    assert str(Problem("a.toml", 0, "hosts", "is missing")) == "a.toml: hosts: is missing"


def test_a_file_gives_relative_paths_their_start(tmp_path):
    path = tmp_path / "mongooseim.toml"
    path.write_text('hosts = ["a"]\n[[listen.c2s]]\nport = 1\n[[listen.c2s]]\nport = 2\ncertificate = "/x.cer"\n')
    certificates = [listener.certificate for listener in load(path, SCHEMA).sections("listen", "c2s")]
    assert certificates == [tmp_path / "ca.cer", Path("/x.cer")]


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path):
    path = tmp_path / "mongooseim.toml"
    with pytest.raises(ConfigError, match=f"{path}: cannot be read: No such file or directory"):
        load(path, SCHEMA)
    path.write_bytes(b'hosts = ["a"]\n# \xff\n')
    with pytest.raises(ConfigError, match=f"{path}:2: is not UTF-8"):
        load(path, SCHEMA)


def test_a_secret_may_be_in_a_file(tmp_path):
    (tmp_path / "auth.secret").write_text("hunter2\n")
    path = tmp_path / "mongooseim.toml"
    path.write_text('hosts = ["a"]\n[auth]\nurl = "http://a/"\npassword_file = "auth.secret"\n')
    assert load(path, SCHEMA).section("auth").password == "hunter2"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            'password_file = "gone"',
            "auth.password_file: {tmp}/gone cannot be read: No such file or directory",
        ),
        (
            'password_file = "short"',
            "auth.password_file: the content of {tmp}/short must be at least 3 characters",
        ),
        ('password_file = "binary"', "auth.password_file: {tmp}/binary is not UTF-8"),
        ("password_file = 1", "auth.password_file: must be the path of a file"),
        (
            'password_file = "good"\npassword = "hunter2"',
            'auth.password_file: cannot stand beside "password": keep one of them',
        ),
    ],
)
def test_a_secret_s_file_is_checked(tmp_path, lines, reason):
    (tmp_path / "short").write_text("x\n")
    (tmp_path / "good").write_text("hunter2\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    path = tmp_path / "mongooseim.toml"
    path.write_text(f'hosts = ["a"]\n[auth]\nurl = "http://a/"\n{lines}\n')
    with pytest.raises(ConfigError) as caught:
        load(path, SCHEMA)
    assert [str(problem) for problem in caught.value.problems] == [f"{path}:4: {reason.format(tmp=tmp_path)}"]
    assert "hunter2" not in str(caught.value)


def test_a_secret_may_be_a_credential_of_the_unit(tmp_path, monkeypatch):
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "auth").write_text("hunter2\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    path = tmp_path / "mongooseim.toml"
    path.write_text('hosts = ["a"]\n[auth]\nurl = "http://a/"\npassword_file = "$CREDENTIALS_DIRECTORY/auth"\n')
    assert load(path, SCHEMA).section("auth").password == "hunter2"


def test_a_credential_outside_of_a_unit_is_told_where_to_look(tmp_path, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    path = tmp_path / "mongooseim.toml"
    path.write_text('hosts = ["a"]\n[auth]\nurl = "http://a/"\npassword_file = "$CREDENTIALS_DIRECTORY/auth"\n')
    with pytest.raises(ConfigError, match=r"4: auth\.password_file: names .* CREDENTIALS_DIRECTORY is not set"):
        load(path, SCHEMA)
