"""gunicorn's settings for the authentication service: `gunicorn -c python:monktalk.auth.gunicorn_conf`.

Everything comes from the service's own file, which the environment variable MONKTALK_AUTH_CONFIG names. SIGHUP reads
it and all authenticators anew: a new worker starts, takes over, and the old one ends when its calls have ended.

There is one worker process, with threads. Back-off and caches are shared by its threads, and PBKDF2, where the time
goes, runs outside of Python's lock on all cores.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from monktalk.auth import serving
from monktalk.auth.worker import AuthLogger, AuthWorker
from monktalk.common.config import ConfigError
from monktalk.common.logging import get_logger

if TYPE_CHECKING:
    from typing import Any

log = get_logger(__name__)

try:
    _service = serving.current().section("service")
except (ConfigError, OSError) as error:
    sys.exit(f"The authentication service cannot start:\n{error}")

wsgi_app = "monktalk.auth.app:create_app()"
bind = [f"[{_service.address}]:{_service.port}" if ":" in _service.address else f"{_service.address}:{_service.port}"]
proc_name = "monktalk-auth"

workers = 1
worker_class = AuthWorker
threads = _service.threads
worker_connections = 1000
backlog = 512
keepalive = 75  # longer than the XMPP server keeps idle connections, so that it is the one who closes them
timeout = 30
graceful_timeout = int(_service.stop_time)
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - gunicorn makes its file safely

http_parser = "python"  # the one that AuthWorker extends
limit_request_fields = 32
limit_request_field_size = 4096
forwarded_allow_ips = ""  # nobody stands in between: forwarding headers mean nothing
proxy_protocol = "off"
control_socket_disable = True

logger_class = AuthLogger
accesslog = None
errorlog = "-"
capture_output = False


def on_starting(server: Any) -> None:
    """Refuse addresses that others can reach, wherever they were set: `--bind` wins over this file."""
    for address in server.cfg.address:
        if isinstance(address, tuple) and not serving.is_loopback(address[0]):
            _refuse(address[0])


def when_ready(server: Any) -> None:
    """Look at the real sockets, which may come from systemd, and say where the service is."""
    names = [listener.sock.getsockname() for listener in server.LISTENERS]
    for listener, name in zip(server.LISTENERS, names, strict=True):
        if listener.sock.family != socket.AF_UNIX and not ipaddress.ip_address(name[0]).is_loopback:
            _refuse(name[0])
    addresses = [f"{name[0]} port {name[1]}" if isinstance(name, tuple) else str(name) for name in names]
    log.info("listening", addresses=addresses)


def on_reload(server: Any) -> None:
    """Read the configuration anew, before the new worker starts; a bad one is logged and not taken."""
    if serving.reload():
        log.info("reloading")
    server.log.setup(server.cfg)


def worker_exit(server: Any, worker: Any) -> None:
    """Say in the log when a worker has ended."""
    del server
    log.info("worker_ended", pid=worker.pid)


def _refuse(address: str) -> None:
    sys.exit(
        f"The authentication service does not listen on {address}: calls carry passwords in clear. "
        "Use an address of the loopback interface, such as 127.0.0.1."
    )
