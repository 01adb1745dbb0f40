from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import pytest

from monktalk.auth.authenticators import (
    AccountExists,
    AccountMissing,
    HttpBackend,
    InvalidCall,
    NotAllowed,
    Unavailable,
    WrongPassword,
)
from monktalk.common import scram
from tests.support.certificates import make_certificate

TIMEOUT = 0.5


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: str
    connection: int

    @property
    def form(self) -> dict[str, str]:
        text = self.body if self.method == "POST" else self.target.partition("?")[2]
        return {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}


@dataclass
class BackEnd:
    """A back end on a real socket that answers `reply`, whatever it is asked."""

    reply: bytes | Callable[[socket.socket], None] = b""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    close_after: bool = False
    tls: ssl.SSLContext | None = None

    def __post_init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def says(self, status: int, body: str = "", *headers: str) -> None:
        self.reply = answer(status, body, *headers)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/accounts"

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection, number):
        try:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as stream:
                while line := stream.readline():
                    self._answer(connection, stream, line.decode(), number)
                    if self.close_after:
                        return
        except OSError:
            return  # the client has gone, or does not trust us

    def _answer(self, connection, stream, line, number):
        headers = {}
        while (header := stream.readline().decode().strip()) != "":
            name, _, value = header.partition(": ")
            headers[name.lower()] = value
        body = stream.read(int(headers.get("content-length", 0))).decode()
        method, target, _ = line.split(" ")
        self.requests.append(Request(method, target, headers, body, number))
        if callable(self.reply):
            self.reply(connection)
        else:
            connection.sendall(self.reply)

    def close(self):
        # Closing alone does not wake the thread that accepts, and leaves the port open until it wakes.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self._open:
            connection.close()


def answer(status: int, body: str = "", *headers: str) -> bytes:
    data = body.encode()
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(data)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + data


@pytest.fixture
def back_end():
    back_end = BackEnd()
    yield back_end
    back_end.close()


@pytest.fixture
def connect(back_end, resources):
    started = []

    def connect(url: str | None = None, **options) -> HttpBackend:
        accounts = HttpBackend(url or back_end.url, **{"timeout": TIMEOUT, **options})
        accounts.start("example.org", resources)
        started.append(accounts)
        return accounts

    yield connect
    for accounts in started:
        accounts._client.close()


def test_the_contract_is_spoken(connect, back_end):
    back_end.says(200, "true")
    assert connect(username="us", password="pä:ss").check_password("alice", "s&cr=t +ü#")
    (request,) = back_end.requests
    assert request.method == "GET"
    assert request.target == "/accounts/check_password?user=alice&server=example.org&pass=s%26cr%3Dt%20%2B%C3%BC%23"
    assert request.headers["authorization"] == "Basic " + base64.b64encode("us:pä:ss".encode()).decode()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, "true", True),
        (200, "alice#home", True),
        (200, "alice@home", True),
        (200, "false", False),
        (200, "", False),
        (200, "True", False),
        (200, "true\n", False),
        (200, "alice", False),
        (200, "alice#homer", False),
        (201, "true", False),
        (204, "", False),
        (400, "true", False),
        (401, "true", False),
        (403, "true", False),
        (404, "alice#home", False),
        (409, "true", False),
    ],
)
def test_only_the_word_or_the_name_is_a_yes(connect, back_end, status, body, expected):
    back_end.says(status, body)
    accounts = connect()
    assert accounts.user_exists("alice#home") is expected
    assert accounts.check_password("alice#home", "secret") is expected


def test_a_number_sign_stands_for_an_at_sign_towards_the_back_end(connect, back_end):
    back_end.says(200, "true")
    connect().user_exists("alice#gmail.example")
    assert back_end.requests[0].form["user"] == "alice@gmail.example"


@pytest.mark.parametrize("status", [301, 302, 307, 402, 405, 418, 429, 500, 502, 503, 599])
def test_any_other_status_lets_nobody_in_and_is_no_refusal(connect, back_end, status):
    back_end.says(status, "true", "Location: http://127.0.0.1:1/")
    with pytest.raises(Unavailable):
        connect().check_password("alice", "secret")
    assert len(back_end.requests) == 1


def test_a_back_end_that_refuses_this_service_is_no_refusal_of_the_user(connect, back_end, caplog):
    back_end.says(401)
    with pytest.raises(Unavailable):
        connect(username="us", password="wrong").check_password("alice", "secret")
    assert "backend_refuses_service" in caplog.messages


def test_connections_are_kept(connect, back_end):
    back_end.says(200, "true")
    accounts = connect()
    for _ in range(3):
        assert accounts.user_exists("alice")
    assert back_end.connections == 1


def test_a_connection_that_the_back_end_has_closed_is_replaced(connect, back_end):
    back_end.says(200, "true")
    back_end.close_after = True
    accounts = connect()
    for _ in range(3):
        assert accounts.user_exists("alice")
    assert back_end.connections == 3


def test_changes_are_never_sent_on_a_kept_connection(connect, back_end):
    back_end.says(200, "true")
    accounts = connect(changes=True)
    assert accounts.user_exists("alice")
    accounts.set_password("alice", "new")
    assert [request.connection for request in back_end.requests] == [1, 2]


def test_a_back_end_that_is_not_there_is_unavailable(connect, back_end, caplog):
    back_end.close()
    with pytest.raises(Unavailable) as caught:
        connect().check_password("alice", "s3cret")
    assert "Connection refused" in str(caught.value)
    assert caught.value.__cause__ is None
    assert "s3cret" not in str([record.__dict__ for record in caplog.records])


DRIPS = {
    "says nothing": lambda connection: time.sleep(TIMEOUT * 3),
    "drips its headers": lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000),
    "drips its body": lambda connection: drip(
        connection, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
    ),
}


def drip(connection: socket.socket, data: bytes) -> None:
    for byte in data:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


@pytest.mark.parametrize("case", DRIPS)
def test_a_slow_back_end_costs_no_more_than_the_timeout(connect, back_end, case):
    back_end.reply = DRIPS[case]
    began = time.monotonic()
    with pytest.raises(Unavailable, match="time is up"):
        connect().check_password("alice", "secret")
    assert time.monotonic() - began < TIMEOUT * 2


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\n\r\ntrue",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntrue",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ntrue",
        b"SSH-2.0-OpenSSH\r\n",
        b"\x16\x03\x01",
        b"",
    ],
    ids=["no length", "cut off", "chunk cut off", "ssh", "tls", "nothing"],
)
def test_an_answer_that_may_be_cut_off_is_none(connect, back_end, reply):
    back_end.reply = reply
    back_end.close_after = True
    with pytest.raises(Unavailable):
        connect().check_password("true", "secret")


def test_chunked_answers_are_read(connect, back_end):
    back_end.reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ntr\r\n2\r\nue\r\n0\r\n\r\n"
    accounts = connect()
    assert accounts.check_password("alice", "secret")
    assert accounts.check_password("alice", "secret")
    assert back_end.connections == 1


def test_an_answer_that_is_too_long_is_not_read(connect, back_end):
    back_end.says(200, "x" * 101)
    with pytest.raises(Unavailable, match="HTTPException"):
        connect(max_answer=100).user_exists("alice")
    back_end.says(200, "x" * 100)
    assert not connect(max_answer=100).user_exists("alice")


def test_more_calls_than_connections_wait_and_then_give_up(connect, back_end):
    released = threading.Event()

    def hold(connection):
        released.wait(10)
        connection.sendall(answer(200, "true"))

    back_end.reply = hold
    accounts = connect(connections=1, timeout=5.0)
    first = threading.Thread(target=accounts.user_exists, args=("alice",))
    first.start()
    while not back_end.requests:
        time.sleep(0.005)
    accounts._client._timeout = 0.1
    with pytest.raises(Unavailable, match="busy"):
        accounts.user_exists("bob")
    released.set()
    first.join()
    accounts._client._timeout = 5.0
    assert accounts.user_exists("bob")


class TestPasswords:
    def test_they_are_not_asked_for_unless_the_back_end_gives_them(self, connect, back_end):
        assert connect().get_password("alice") is None
        assert connect().get_certs("alice") is None
        assert back_end.requests == []

    def test_keys_are_passed_on(self, connect, back_end):
        keys = scram.format_multi(scram.derive_all("secret"))
        back_end.says(200, keys)
        assert connect(gives_passwords=True).get_password("alice") == keys
        assert connect(gives_passwords=True, password_format="plain").get_password("alice") is None

    def test_a_password_becomes_keys_once(self, connect, back_end, hashing):
        back_end.says(200, "secret")
        accounts = connect(gives_passwords=True)
        keys = accounts.get_password("alice")
        assert scram.verify_password("secret", scram.parse(keys)["sha256"])
        computed = len(hashing)
        assert accounts.get_password("alice") == keys
        assert len(hashing) == computed

    def test_in_plain_format_it_stays_one(self, connect, back_end):
        back_end.says(200, "secret")
        assert connect(gives_passwords=True, password_format="plain").get_password("alice") == "secret"

    @pytest.mark.parametrize("reply", [answer(404), answer(200), answer(401, "x"), answer(200, "\U0001f600")])
    def test_there_may_be_none(self, connect, back_end, reply):
        back_end.reply = reply
        assert connect(gives_passwords=True).get_password("alice") is None

    def test_certificates_are_passed_on(self, connect, back_end):
        back_end.says(200, "-----BEGIN CERTIFICATE-----\n")
        assert connect(gives_passwords=True).get_certs("alice") == "-----BEGIN CERTIFICATE-----\n"


class TestChanges:
    def test_they_are_refused_unless_allowed(self, connect, back_end):
        accounts = connect()
        for change in (
            lambda: accounts.register("alice", "x"),
            lambda: accounts.set_password("alice", "x"),
            lambda: accounts.remove_user("alice"),
            lambda: accounts.remove_user_validate("alice", "x"),
        ):
            with pytest.raises(NotAllowed):
                change()
        assert back_end.requests == []

    def test_they_are_passed_on_as_forms(self, connect, back_end):
        back_end.says(201)
        connect(changes=True).register("alice#home", "sécret")
        (request,) = back_end.requests
        assert (request.method, request.target) == ("POST", "/accounts/register")
        assert request.form == {"user": "alice@home", "server": "example.org", "pass": "sécret"}

    @pytest.mark.parametrize(
        ("call", "status", "error"),
        [
            ("register", 409, AccountExists),
            ("register", 403, NotAllowed),
            ("register", 400, InvalidCall),
            ("register", 500, Unavailable),
            ("set_password", 404, AccountMissing),
            ("set_password", 403, NotAllowed),
            ("remove_user", 404, AccountMissing),
            ("remove_user_validate", 403, WrongPassword),
            ("remove_user_validate", 404, AccountMissing),
        ],
    )
    def test_refusals_are_passed_on(self, connect, back_end, call, status, error):
        back_end.says(status)
        arguments = ("alice",) if call == "remove_user" else ("alice", "secret")
        with pytest.raises(error):
            getattr(connect(changes=True), call)(*arguments)


def test_names_can_be_fitted_to_the_back_end(connect, back_end):
    back_end.says(200, "true")
    accounts = connect(
        post=True,
        server="tenant 7",
        paths={"check_password": "v2/login"},
        parameters={"user": "username", "pass": "password"},
    )
    assert accounts.check_password("alice", "secret")
    (request,) = back_end.requests
    assert (request.method, request.target) == ("POST", "/accounts/v2/login")
    assert request.form == {"username": "alice", "server": "tenant 7", "password": "secret"}


@pytest.mark.parametrize(
    ("url", "options", "reason"),
    [
        ("ftp://example.org/", {}, "must be like"),
        ("https:///x", {}, "must be like"),
        ("https://example.org/?a=b", {}, "must be like"),
        ("https://us:secret@example.org/", {}, "without credentials"),
        ("http://example.org/", {}, "everybody on the way"),
        ("https://example.org/", {"timeout": 0}, "must be positive"),
        ("https://example.org/", {"paths": {"login": "x"}}, "not login"),
        ("https://example.org/", {"parameters": {"password": "x"}}, "not password"),
        ("https://example.org/", {"answer": "yes"}, "must be"),
        ("https://example.org/", {"password_format": "md5"}, "must be"),
    ],
)
def test_mistakes_are_named(url, options, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        HttpBackend(url, **options)
    assert "secret" not in str(caught.value)


def test_clear_text_can_be_insisted_on():
    HttpBackend("http://example.org/", insecure=True)
    HttpBackend("http://localhost:8080/")


def test_the_password_may_be_in_a_file(connect, back_end, tmp_path):
    (tmp_path / "password").write_text("from the file\n")
    back_end.says(200, "true")
    connect(username="us", password_file=str(tmp_path / "password")).user_exists("alice")
    assert back_end.requests[0].headers["authorization"] == "Basic " + base64.b64encode(b"us:from the file").decode()


class TestTls:
    @pytest.fixture
    def secure(self, back_end, tmp_path):
        certificate, key = make_certificate(tmp_path, "backend", ["localhost"])
        back_end.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        back_end.tls.load_cert_chain(certificate, key)
        back_end.says(200, "true")
        return f"https://localhost:{back_end.port}/", str(certificate)

    def test_a_certificate_that_is_trusted_is_taken(self, connect, back_end, secure):
        url, certificate = secure
        accounts = connect(url, ca_file=certificate)
        assert accounts.user_exists("alice")
        assert accounts.user_exists("alice")
        assert back_end.connections == 1

    def test_a_certificate_that_is_not_trusted_ends_the_call_before_anything_is_sent(self, connect, back_end, secure):
        with pytest.raises(Unavailable, match="certificate is refused"):
            connect(secure[0]).check_password("alice", "secret")
        assert back_end.requests == []

    def test_a_certificate_for_another_name_is_not_taken(self, connect, back_end, secure):
        url, certificate = secure
        with pytest.raises(Unavailable, match="certificate is refused"):
            connect(url.replace("localhost", "127.0.0.1"), ca_file=certificate).check_password("alice", "secret")
        assert back_end.requests == []
