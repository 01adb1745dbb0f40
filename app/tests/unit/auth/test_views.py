"""The contract, call by call, over web_users."""

from __future__ import annotations

import pytest

from monktalk.auth.errors import InvalidCall
from monktalk.auth.views import parse_form
from tests.unit.auth.conftest import WEB_USERS, outcome

TRUE = WEB_USERS.replace("WebUsers()", 'WebUsers(answer="true")')
PLAIN = WEB_USERS.replace("WebUsers()", 'WebUsers(password_format="plain")')


@pytest.fixture(autouse=True)
def alice(service, database):
    database.insert("alice", "secret")
    service.domain("true.example", TRUE)
    database.insert("alice", "secret", "true.example")


@pytest.mark.parametrize(("server", "word"), [("example.org", "alice"), ("true.example", "true")])
def test_success_is_said_in_the_domain_s_word(service, server, word):
    for call in ("user_exists", "check_password"):
        assert outcome(service.call(call, "alice", "secret", server)) == (200, word)
    assert outcome(service.call("set_password", "alice", "new", server)) == (200, word)
    assert outcome(service.call("remove_user", "alice", "", server)) == (200, word)
    assert outcome(service.call("register", "alice", "again", server)) == (201, word)
    assert outcome(service.call("remove_user_validate", "alice", "again", server)) == (200, word)


def test_the_word_for_all_domains_is_configured(service):
    service.start(authenticators={"answer": "true"})
    assert outcome(service.call("check_password", "alice", "secret")) == (200, "true")


def test_the_user_name_is_answered_in_utf_8(service, database):
    database.insert("zoë", "secret")
    response = service.call("check_password", "zoë", "secret")
    assert response.data == "zoë".encode()


def test_unknown_users_wrong_passwords_and_unknown_domains_look_the_same(service):
    answers = {
        (response.status_code, response.data, tuple(response.headers))
        for response in (
            service.call("check_password", "alice", "wrong"),
            service.call("check_password", "nobody", "secret"),
            service.call("check_password", "alice", "secret", "unknown.example"),
            service.call("check_password", "alice", "secret", "not a domain"),
            service.call("check_password", "true", "secret"),
            service.call("check_password", "alice", ""),
        )
    }
    assert len(answers) == 1
    assert answers.pop()[:2] == (200, b"false")
    answers = {
        (response.status_code, response.data, tuple(response.headers))
        for response in (
            service.call("user_exists", "nobody"),
            service.call("user_exists", "alice", server="unknown.example"),
            service.call("user_exists", "false"),
        )
    }
    assert len(answers) == 1
    assert answers.pop()[:2] == (200, b"false")


def test_get_password_gives_scram_keys_or_in_plain_format_the_password(service, database):
    service.domain("plain.example", PLAIN)
    database.insert("alice", "secret", "plain.example")
    status, body = outcome(service.call("get_password", "alice"))
    assert (status, body) == (200, database.token("alice"))
    assert body.startswith("==MULTI_SCRAM==,4096,===SHA1===")
    assert outcome(service.call("get_password", "alice", server="plain.example")) == (200, "secret")
    missing = {
        outcome(service.call("get_password", *names))
        for names in (("nobody",), ("alice", "", "unknown.example"), ("true",))
    }
    assert missing == {(404, "There is no such account.")}


def test_register_says_201_409_403_and_400(service, database):
    assert outcome(service.call("register", "bob", "secret"))[0] == 201
    assert outcome(service.call("register", "bob", "other"))[0] == 409
    assert outcome(service.call("register", "carol", "secret", "unknown.example"))[0] == 403
    assert outcome(service.call("register", "carol", ""))[0] == 400
    assert outcome(service.call("register", "carol", "x" * 1024))[0] == 400
    assert outcome(service.call("register", "true", "secret"))[0] == 403
    assert outcome(service.call("check_password", "bob", "secret")) == (200, "bob")
    assert database.token("carol") is None


def test_changes_of_accounts_that_do_not_exist_are_404(service):
    for call in ("set_password", "remove_user", "remove_user_validate"):
        for names in (("nobody", "x"), ("alice", "x", "unknown.example"), ("true", "x")):
            assert outcome(service.call(call, *names))[0] == 404


def test_remove_user_validate_wants_the_password(service, database):
    assert outcome(service.call("remove_user_validate", "alice", "wrong")) == (403, "The password is wrong.")
    assert database.token("alice") == "secret"
    assert outcome(service.call("remove_user_validate", "alice", "secret"))[0] == 200
    assert database.token("alice") is None


def test_there_are_no_certificates_unless_the_authenticator_has_some(service):
    assert outcome(service.call("get_certs", "alice"))[0] == 404
    service.domain(
        "certs.example",
        "from monktalk.auth.authenticators import *\n"
        "class Certs(WebUsers):\n    def get_certs(self, user):\n        return '-----BEGIN CERTIFICATE-----'\n"
        "authenticator = Certs()\n",
    )
    service.start()
    assert outcome(service.call("get_certs", "alice", server="certs.example")) == (200, "-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize("name", ["true", "false"])
def test_accounts_named_like_a_verdict_do_not_exist_even_if_they_are_in_the_table(service, database, name):
    database.insert(name, "secret")
    database.insert(name, "secret", "true.example")
    for server in ("example.org", "true.example"):
        assert outcome(service.call("user_exists", name, "", server)) == (200, "false")
        assert outcome(service.call("check_password", name, "secret", server)) == (200, "false")
        assert outcome(service.call("get_password", name, "", server))[0] == 404
        assert outcome(service.call("remove_user_validate", name, "secret", server))[0] == 404


FORM = "user=alice&server=example.org&pass=secret"


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "text/plain", "application/json"])
def test_bodies_are_read_whatever_they_are_called(service, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = service.send("POST", "/authorize/set_password", data=FORM.encode(), headers=headers)
    assert outcome(response) == (200, "alice")


@pytest.mark.parametrize(
    "form",
    [
        "",
        "user=alice&server=example.org",
        "user=alice&pass=secret",
        "server=example.org&pass=secret",
        "user=&server=example.org&pass=secret",
        "user=alice&server=&pass=secret",
        FORM + "&user=bob",
        FORM + "&a=1&b=2&c=3&d=4",
        FORM.replace("alice", "%FF"),
        FORM.replace("alice", "a%00b"),
        FORM.replace("secret", "a%0Ab"),
        FORM.replace("alice", "a" * 1024),
        FORM.replace("example.org", "a." * 512),
        FORM.replace("secret", "a" * 1024),
        FORM.replace("secret", "%C3%A4" * 512),
    ],
)
def test_malformed_calls_are_refusals(service, form):
    for call in ("user_exists", "check_password", "get_password", "get_certs"):
        assert service.send("GET", f"/authorize/{call}", query_string=form).status_code == 400
    for call in ("register", "set_password", "remove_user", "remove_user_validate"):
        assert service.send("POST", f"/authorize/{call}", data=form.encode()).status_code == 400


def test_the_parameters_of_a_post_are_in_its_body_only(service):
    response = service.send("POST", "/authorize/set_password", query_string=FORM, data=b"")
    assert response.status_code == 400


def test_the_server_is_found_in_any_spelling(service):
    assert outcome(service.call("check_password", "alice", "secret", "EXAMPLE.org")) == (200, "alice")
    assert outcome(service.call("check_password", "alice", "secret", "example.org.")) == (200, "alice")


@pytest.mark.parametrize(
    ("data", "user"),
    [
        (b"user=zo%C3%AB&server=s&pass=", "zoë"),
        ("user=zoë&server=s&pass=".encode(), "zoë"),
        ("user=zoë%C3%AB&server=s&pass=".encode(), "zoëë"),
        (b"user=a%2Bb%26c%3Dd%25&server=s&pass=", "a+b&c=d%"),
        (b"user=a%20b&server=s&pass=", "a b"),
        (b"user=a+b&server=s&pass=", "a b"),
        (b"pass=&server=s&user=x&extra=1", "x"),
        (b"user=a;b&server=s&pass=", "a;b"),
    ],
)
def test_forms_are_read_percent_encoded_or_raw(data, user):
    values = parse_form(data)
    assert (values["user"], values["server"], values["pass"]) == (user, "s", "")


@pytest.mark.parametrize("data", [b"user=\xff", b"user=%FF", b"user=a&user=b", "user=zoë".encode("latin-1")])
def test_forms_that_cannot_be_read_are_refused(data):
    with pytest.raises(InvalidCall):
        parse_form(data)
