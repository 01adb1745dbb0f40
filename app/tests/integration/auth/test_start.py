"""What makes the service refuse to start, and that it never leaves the machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.support.program import Program, wait_until
from tests.support.stack import answers

COMMAND = [sys.executable, "-m", "gunicorn", "-c", "python:monktalk.auth.gunicorn_conf"]
EVERYWHERE = "0.0.0.0"  # noqa: S104 - to be refused

PASS_SOCKET = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What a service manager does: sockets from file descriptor 3 on, for the process that is named."""


def run(service, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start the service and return what it says; it must end by itself."""
    environment = {**os.environ, "MONKTALK_AUTH_CONFIG": str(service.config)}
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.parametrize("address", [EVERYWHERE, "::", "192.0.2.1"])
def test_an_address_that_others_can_reach_is_refused_with_its_line(own_service, address):
    own_service.configure({"service": {"address": address}})
    ended = run(own_service)
    assert ended.returncode == 1
    assert f"{own_service.config}:" in ended.stderr
    assert "service.address: must be an address of the loopback interface" in ended.stderr
    assert not answers(own_service.port)


def test_it_is_refused_on_the_command_line_and_in_the_environment_too(own_service, monkeypatch):
    bind = f"{EVERYWHERE}:{own_service.port}"
    ended = run(own_service, "--bind", bind)
    assert ended.returncode != 0
    assert "does not listen on 0.0.0.0" in ended.stderr
    monkeypatch.setenv("GUNICORN_CMD_ARGS", f"--bind={bind}")
    ended = run(own_service)
    assert ended.returncode != 0
    assert "does not listen on 0.0.0.0" in ended.stderr


def test_a_socket_of_the_service_manager_is_refused_too(own_service):
    with socket.create_server((EVERYWHERE, own_service.port)) as listener:
        ended = subprocess.run(
            [sys.executable, "-c", PASS_SOCKET, str(listener.fileno()), *COMMAND],
            env={**os.environ, "MONKTALK_AUTH_CONFIG": str(own_service.config)},
            pass_fds=(listener.fileno(),),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert ended.returncode != 0
    assert "does not listen on 0.0.0.0" in ended.stderr


def test_the_default_listens_on_loopback_only(own_service):
    own_service.start()
    wait_until(lambda: "listening" in own_service.log, "the service says where it listens")
    assert f"127.0.0.1 port {own_service.port}" in own_service.log
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks for the way there
        address = probe.getsockname()[0]
    if not address.startswith("127."):
        with socket.socket() as outside:
            outside.settimeout(2)
            assert outside.connect_ex((address, own_service.port)) != 0


def test_all_mistakes_in_the_file_are_named_and_no_secret(own_service):
    own_service.configure({"service": {"port": "many", "colour": "green"}, "database": {"url": "mysql://u:s3cret@h/d"}})
    ended = run(own_service)
    assert ended.returncode == 1
    assert "service.port: must be a whole number" in ended.stderr
    assert "service.colour: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert own_service.password not in ended.stderr
    assert "s3cret" not in ended.stderr


def test_a_missing_file_is_named(own_service):
    own_service.config.unlink()
    ended = run(own_service)
    assert ended.returncode == 1
    assert f"{own_service.config}: cannot be read: No such file or directory" in ended.stderr


def test_it_starts_without_a_database_and_without_domains(own_service):
    for path in own_service.authenticators.iterdir():
        path.unlink()
    own_service.configure({"database": {"url": "postgresql://nobody@127.0.0.1:1/none"}})
    own_service.start()
    assert own_service.call("check_password", "alice", "secret") == (200, "false")


def test_it_stops_in_good_order_on_sigterm(own_service):
    own_service.start()
    os.kill(own_service.program.pid, signal.SIGTERM)
    assert own_service.program.stop() == 0
    assert not answers(own_service.port)


MODULE = [sys.executable, "-m", "monktalk.auth"]


def test_the_module_checks_a_file_without_starting_anything(own_service):
    command = [*MODULE, "--check", "--config", str(own_service.config)]
    assert subprocess.run(command, timeout=20, check=False).returncode == 0
    own_service.configure({"service": {"address": EVERYWHERE}})
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 1
    assert f"{own_service.config}:" in ended.stderr
    assert "service.address: must be an address of the loopback interface" in ended.stderr


def test_the_module_becomes_the_service(own_service):
    program = Program(
        "auth service", [*MODULE, "--config", str(own_service.config)], own_service.config.with_name("log")
    )
    program.start(lambda: answers(own_service.port))
    try:
        assert own_service.call("check_password", "alice", "secret") == (200, "false")
    finally:
        assert program.stop() == 0


def test_the_service_manager_s_watchdog_is_fed(own_service, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        program = Program(
            "auth service",
            [*MODULE, "--config", str(own_service.config)],
            own_service.config.with_name("log"),
            env={"NOTIFY_SOCKET": str(tmp_path / "notify")},
        )
        program.start(lambda: answers(own_service.port))
        try:
            heard: list[str] = []
            while heard.count("WATCHDOG=1") < 2:
                heard += manager.recv(4096).decode().splitlines()
            assert heard[0] == "READY=1"
        finally:
            program.stop()
