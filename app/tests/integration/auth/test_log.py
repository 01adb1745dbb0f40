"""No password in any line of the log, whatever goes wrong, at the most talkative level."""

from __future__ import annotations

import socket
from urllib.parse import quote

MINE = """
from monktalk.auth.authenticators import *

class Mine(Authenticator):
    def user_exists(self, user):
        return True

    def check_password(self, user, password):
        raise ValueError(password)

authenticator = Mine()
"""

PASSWORD = "hunter-zwölf-2"


def send(service, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass


def test_no_password_is_logged(own_service):
    service = own_service
    service.domain("mine.example", MINE)
    service.domain(
        "back.example", "from monktalk.auth.authenticators import *\nauthenticator = HttpBackend('http://127.0.0.1:1/')"
    )
    service.configure({"log": {"level": "debug"}})
    service.insert("alice", PASSWORD)
    service.start()
    for server in ("example.org", "mine.example", "back.example", "unknown.example"):
        for user in ("alice", "nobody", "a b", "x" * 2000):
            for call in ("check_password", "get_password", "register", "set_password", "remove_user_validate"):
                service.call(call, user, PASSWORD, server=server, address="192.0.2.1")
    for _ in range(10):
        service.call("check_password", "alice", f"{PASSWORD} wrong", address="192.0.2.7")
    encoded = quote(PASSWORD).encode()
    target = b"/authorize/check_password?user=alice&server=example.org&pass=" + encoded
    authorization = b"Authorization: " + service.authorization.encode()
    for request in (
        b"GET " + target,
        b"GET " + target + b" HTTP/1.1\r\nHost: x",
        b"GET " + target + b" HTTP/1.1\r\n\r\n",
        b"GET " + target + b" HTTP/7\r\n\r\n",
        b"GET " + target + b" HTTP/1.1\r\nbad header " + encoded + b"\r\n\r\n",
        b"GET " + target + b" HTTP/1.1\r\nTransfer-Encoding: " + encoded + b"\r\n\r\n",
        b"GE(T " + target + b" HTTP/1.1\r\n\r\n",
        b"POST /authorize/register HTTP/1.1\r\n" + authorization + b"\r\nContent-Length: 500\r\n\r\npass=" + encoded,
        b"POST /authorize/register HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + encoded + b"\r\n",
        target + b"\r\n\r\n",
    ):
        send(service, request)
    assert service.call("check_password", "alice", "x", server="mine.example").status == 503
    service.program.stop()
    log = service.log
    assert "authenticator_failed" in log
    assert "request_refused" in log
    assert "back_off" in log
    for form in (PASSWORD, quote(PASSWORD), PASSWORD.encode("unicode_escape").decode(), "hunter", service.password):
        assert form not in log
    assert service.authorization.partition(" ")[2] not in log


def test_every_line_is_an_event(own_service):
    own_service.start()
    own_service.call("check_password", "alice", "secret")
    own_service.program.stop()
    for line in own_service.log.splitlines():
        stamp, level, logger = line.split(" ")[:3]
        assert stamp.endswith("Z")
        assert level in ("INFO", "WARNING", "ERROR")
        assert logger.startswith(("monktalk.", "gunicorn."))
