"""The contract on real sockets, as MongooseIM speaks it."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from monktalk.common import scram
from tests.support.accounts import fresh_name

SINGLE = "==SCRAM==,tmi5IE+9pceRV/jkPLFHEaVY33c=,MiWNa8T3dniVDwmh77ufJ41fpAQ=,inKXODlSY5y5SCsLxibi0w==,4096"


def test_a_login_inserted_by_hand_works_at_once_and_is_upgraded(service):
    user = fresh_name()
    assert service.call("check_password", user, "secret") == (200, "false")
    service.insert(user, "secret")
    assert service.call("user_exists", user) == (200, user)
    assert service.call("check_password", user, "wrong") == (200, "false")
    assert service.call("check_password", user, "secret") == (200, user)
    credentials = scram.parse(service.token(user) or "")
    assert all(scram.verify_password("secret", keys) for keys in credentials.values())
    assert service.call("check_password", user, "secret") == (200, user)
    assert service.call("get_password", user) == (200, service.token(user))


def test_the_check_vector(service):
    user = fresh_name()
    service.insert(user, SINGLE)
    assert service.call("get_password", user) == (200, SINGLE)
    assert service.call("check_password", user, "misio") == (200, user)


def test_the_life_of_an_account(service):
    user = fresh_name()
    assert service.call("register", user, "first").status == 201
    assert service.call("register", user, "second").status == 409
    assert service.call("set_password", user, "second") == (200, user)
    assert service.call("check_password", user, "first") == (200, "false")
    assert service.call("remove_user_validate", user, "first").status == 403
    assert service.call("remove_user_validate", user, "second") == (200, user)
    assert service.call("remove_user", user).status == 404
    assert service.call("get_password", user).status == 404


def test_only_one_of_many_wins_the_race_for_a_name(service):
    user = fresh_name()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: service.call("register", user, f"password {number}"), range(8)))
    assert sorted(answer.status for answer in answers) == [201] + [409] * 7
    winner = [answer.status for answer in answers].index(201)
    assert service.call("check_password", user, f"password {winner}") == (200, user)


def test_many_upgrades_of_one_account_at_once_leave_one_set_of_keys(service):
    user = fresh_name()
    service.insert(user, "secret")
    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(lambda _: service.call("get_password", user), range(16)))
    assert answers == {(200, service.token(user))}


NAMES = ["zoë", "дмитрий", "李雷", "a\u0301", "user#home.example", "a+b", "100%", "x'y", "tilde~"]


@pytest.mark.parametrize("user", NAMES)
def test_names_and_passwords_in_any_script_percent_encoded(service, user):
    service.insert(user, "pässwörd & = + % 李")
    assert service.call("check_password", user, "pässwörd & = + % 李") == (200, user)
    assert service.call("remove_user", user) == (200, user)


@pytest.mark.parametrize("user", ["zoë", "дмитрий", "李雷"])
def test_names_and_passwords_as_raw_utf_8_like_erlang_s_clients_send_them(service, user):
    service.insert(user, "pässwörd")
    query = f"user={user}&server=example.org&pass=pässwörd".encode()
    assert service.raw(b"GET /authorize/check_password?" + query + b" HTTP/1.1") == (200, user)
    new = f"user={user}&server=example.org&pass=nëw".encode()
    length = f"Content-Length: {len(new)}".encode()
    assert service.raw(b"POST /authorize/set_password HTTP/1.1", length, body=new) == (200, user)
    assert service.call("check_password", user, "nëw") == (200, user)
    assert service.call("remove_user", user) == (200, user)


@pytest.mark.parametrize(
    "content_type", [b"Content-Type: application/x-www-form-urlencoded", b"Content-Type: text/plain", b"X-Nothing: 1"]
)
def test_a_body_needs_no_content_type(service, content_type):
    user = fresh_name()
    body = f"user={user}&server=example.org&pass=secret".encode()
    length = f"Content-Length: {len(body)}".encode()
    assert service.raw(b"POST /authorize/register HTTP/1.1", content_type, length, body=body).status == 201
    assert service.call("check_password", user, "secret") == (200, user)


def test_bytes_that_are_no_utf_8_are_a_refusal(service):
    query = "user=zoë&server=example.org&pass=x".encode("latin-1")
    assert service.raw(b"GET /authorize/check_password?" + query + b" HTTP/1.1").status == 400


def test_connections_are_kept(service):
    user = fresh_name()
    with closing(service.connect()) as connection:
        service.call_on(connection, "register", user, "secret")
        first = connection.sock
        for _ in range(5):
            assert service.call_on(connection, "check_password", user, "secret") == (200, user)
            assert service.call_on(connection, "get_password", "nobody").status == 404
        assert connection.sock is first is not None


def test_without_credentials_there_is_nothing(service):
    with closing(service.connect()) as connection:
        connection.request("GET", "/authorize/user_exists?user=alice&server=example.org&pass=")
        response = connection.getresponse()
        assert (response.status, response.headers["Content-Length"]) == (401, "45")
        assert response.headers["Server"] == "gunicorn"
        assert "alice" not in response.read().decode()


@pytest.mark.parametrize("size", [1023, 1024, 8_000, 20_000, 60_000])
def test_a_password_of_any_length_is_a_refusal_and_no_outage(service, size):
    """Otherwise anybody could open the XMPP server's circuit breaker."""
    query = f"user=alice&server=example.org&pass={'x' * size}".encode()
    answer = service.raw(b"GET /authorize/check_password?" + query + b" HTTP/1.1")
    assert answer == (200, "false") if size < 1024 else answer.status == 400
    length = f"Content-Length: {len(query)}".encode()
    assert service.raw(b"POST /authorize/set_password HTTP/1.1", length, body=query).status in (400, 404)


def test_the_longest_names_and_passwords_fit_whatever_script_they_are_in(service):
    user, password = "ж" * 511, "я" * 511
    service.insert(user, password)
    assert service.call("check_password", user, password) == (200, user)


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET",
        b"GET /authorize/check_password?pass=s3cret",
        b"\x16\x03\x01s3cret",
        b"GET /?pass=s3cret HTTP/9.9",
        b"GET / pass=s3cret x HTTP/1.1",
    ],
)
def test_what_is_no_http_is_refused_without_being_repeated(service, request_line):
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(request_line + b"\r\n\r\n")
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nContent-Length: 25\r\n" in answer
    assert b"s3cret" not in answer
    assert "s3cret" not in service.log


def test_forwarding_headers_mean_nothing(service):
    user = fresh_name()
    service.insert(user, "secret")
    query = f"user={user}&server=example.org&pass=secret".encode()
    line = b"GET /authorize/check_password?" + query + b" HTTP/1.1"
    for header in (b"SCRIPT_NAME: /authorize", b"X-Forwarded-Proto: https", b"X-Forwarded-For: 192.0.2.1"):
        assert service.raw(line, header) == (200, user)
