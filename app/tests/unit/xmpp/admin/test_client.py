"""Finding the control socket, and one request."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from monktalk.xmpp.admin import client


@pytest.fixture
def config(tmp_path):
    return tmp_path / "mongooseim.toml"


def test_which_configuration(monkeypatch):
    monkeypatch.delenv("MONGOOSEIM_CONFIG", raising=False)
    assert client.config_path(None) == client.DEFAULT_CONFIG
    monkeypatch.setenv("MONGOOSEIM_CONFIG", "/etc/other.toml")
    assert client.config_path(None) == Path("/etc/other.toml")
    assert client.config_path("named.toml") == Path("named.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[general]\ncontrol_socket = "/run/other.sock"\n', "/run/other.sock"),
        ('[general]\ncontrol_socket = "var/own.sock"\n', "{}/var/own.sock"),
        ("[general]\n", str(client.DEFAULT_SOCKET)),
        ("general = 3\n", str(client.DEFAULT_SOCKET)),
        # A file that somebody has broken while the server was running.
        ('[general]\nhosts = [,\n  control_socket = "/run/other.sock" # there\n', "/run/other.sock"),
        ("[general\ncontrol_socket = 'own.sock'\n", "{}/own.sock"),
        ("[general\n", str(client.DEFAULT_SOCKET)),
        ('[general]\ncontrol_socket = "/run/other.sock"\nlanguage = "\udcff"\n', "/run/other.sock"),
    ],
)
def test_the_socket_that_a_configuration_names(config, text, expected):
    config.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert str(client.socket_path(config)) == expected.format(config.parent)


def test_a_configuration_that_can_not_be_read(config, monkeypatch):
    with pytest.raises(client.ConfigUnreadable, match="can't be read"):
        client.socket_path(config)
    config.mkdir()
    with pytest.raises(client.ConfigUnreadable, match="can't be read"):
        client.socket_path(config)
    monkeypatch.setattr(client, "DEFAULT_CONFIG", config.parent / "usual.toml")
    assert client.socket_path(config.parent / "usual.toml") == client.DEFAULT_SOCKET


def serve(path: Path, answer: bytes | None) -> threading.Thread:
    """Answer one request with those bytes; with None leave it unanswered until the caller gives up."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        connection, _ = listener.accept()
        with listener, connection:
            if answer is not None:
                connection.recv(65536)
                connection.sendall(answer)
            else:
                while connection.recv(65536):
                    pass

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_an_answer(tmp_path):
    thread = serve(tmp_path / "s", b'{"code": 0, "text": "x", "data": 1}\n')
    assert client.ask(tmp_path / "s", "stats", ["name"]) == {"code": 0, "text": "x", "data": 1}
    thread.join()


@pytest.mark.parametrize("answer", [b"", b"{", b"[]\n", b'{"text": "x"}\n'])
def test_an_answer_that_is_cut_off(tmp_path, answer):
    thread = serve(tmp_path / "s", answer)
    with pytest.raises(client.Unreachable, match="gone away"):
        client.ask(tmp_path / "s", "stats", [])
    thread.join()


def test_no_answer(tmp_path):
    thread = serve(tmp_path / "s", None)
    with pytest.raises(client.Unreachable, match="does not answer within"):
        client.ask(tmp_path / "s", "stats", [], seconds=0.05)
    thread.join()


def test_nobody_there(tmp_path):
    with pytest.raises(client.Unreachable, match="No server answers at"):
        client.ask(tmp_path / "gone", "stats", [])
    with pytest.raises(client.Unreachable, match="No server answers"):
        client.ask(tmp_path / ("x" * 200), "stats", [])


def test_a_refusal_that_comes_before_everything_was_sent(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def run() -> None:
        connection, _ = listener.accept()
        with listener, connection:
            connection.sendall(b'{"code": 1, "error": "too long"}\n')
            connection.shutdown(socket.SHUT_WR)
            connection.recv(10)
            connection.shutdown(socket.SHUT_RD)

    thread = threading.Thread(target=run)
    thread.start()
    assert client.ask(tmp_path / "s", "import", ["x" * 3_000_000])["error"] == "too long"
    thread.join()
