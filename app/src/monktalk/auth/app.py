"""The application factory: `gunicorn -c python:monktalk.auth.gunicorn_conf 'monktalk.auth.app:create_app()'`."""

from __future__ import annotations

import base64
import hmac
import time
from typing import TYPE_CHECKING, Final

from flask import Flask, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from monktalk.auth import serving
from monktalk.auth.authenticators.base import Resources
from monktalk.auth.backoff import BackOff
from monktalk.auth.cache import DigestCache
from monktalk.auth.errors import CallError, InvalidCall, Throttled, Unauthorized
from monktalk.auth.loader import failure_lines, load_domains
from monktalk.auth.service import AuthService
from monktalk.auth.views import EXTENSION, blueprint, text
from monktalk.auth.web_users import WebUsersTable
from monktalk.common.clock import SystemClock
from monktalk.common.config import Config
from monktalk.common.logging import get_logger

if TYPE_CHECKING:
    from pathlib import Path

    from flask import Response

    from monktalk.common.clock import Clock

MAX_BODY: Final = 32 * 1024
"""Bytes of a body: three parameters of 1023 bytes, percent-encoded, with room to spare."""

REFUSALS_LOGGED_EVERY: Final = 10.0
"""Seconds between two lines about callers without credentials, who may be many."""

log = get_logger(__name__)


def create_app(config: Config | Path | str | None = None, *, clock: Clock | None = None) -> Flask:
    """Return the application.

    Args:
        config: a configuration, or the path of its file; None for the configuration of the process, which comes
            from the file that the environment variable MONKTALK_AUTH_CONFIG names.
        clock: for back-off and caches.

    Raises:
        ConfigError: the file cannot be used.
    """
    if config is None:
        config = serving.current()
    elif not isinstance(config, Config):
        config = serving.read(config)
    app = Flask("monktalk.auth", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY
    app.extensions[EXTENSION] = create_service(config, clock or SystemClock())
    service = config.section("service")
    gate = Gate(service.username, service.password)
    # On the application, not on the blueprint: what has no route must not tell anybody anything either.
    app.before_request(gate.check)
    app.register_blueprint(blueprint)
    app.register_error_handler(CallError, _answer_error)
    app.register_error_handler(HTTPException, _answer_http_error)
    app.register_error_handler(Exception, _answer_fault)
    return app


def create_service(config: Config, clock: Clock) -> AuthService:
    """Return the service behind the views, its domains loaded."""
    section = config.section("authenticators")
    database = config.section("database")
    resources = Resources(
        table=WebUsersTable(database.url, connections=database.connections),
        cache=DigestCache(section.cache_entries, section.cache_time, clock),
        answer=section.answer,
        upgrade=section.upgrade,
        iterations=section.scram_iterations,
    )
    domains = load_domains(section.directory, resources, load_time=section.load_time)
    broken = [domain.name for domain in domains.values() if domain.authenticator is None]
    log.info("ready", domains=len(domains) - len(broken), broken=broken)
    return AuthService(domains, BackOff(config.section("back_off"), clock), section.scram_iterations)


class Gate:
    """HTTP basic authentication (RFC 7617), in front of everything."""

    def __init__(self, username: str, password: str) -> None:
        self._expected = base64.b64encode(f"{username}:{password}".encode())
        self._refused = 0
        self._logged = -REFUSALS_LOGGED_EVERY

    def check(self) -> None:
        """Let the request pass, or end it.

        Raises:
            Unauthorized: it does not carry the right credentials.
        """
        header: str = request.environ.get("HTTP_AUTHORIZATION", "")
        scheme, _, credentials = header.partition(" ")
        right = hmac.compare_digest(credentials.strip().encode("latin-1", "replace"), self._expected)
        if right and scheme.lower() == "basic":
            return
        self._refused += 1
        now = time.monotonic()
        if now - self._logged >= REFUSALS_LOGGED_EVERY:
            log.warning(
                "caller_refused",
                count=self._refused,
                address=request.remote_addr,
                reason="wrong credentials" if header else "no credentials",
                hint="the [auth] username and password of the XMPP server must be those of [service]",
            )
            self._logged, self._refused = now, 0
        raise Unauthorized


def _answer_error(error: CallError) -> Response:
    response = text(error.text, error.status)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = 'Basic realm="MonkTalk authentication service", charset="UTF-8"'
    if isinstance(error, Throttled):
        response.headers["Retry-After"] = str(int(error.wait) + 1)
    return response


def _answer_http_error(error: HTTPException) -> Response:
    """Answer what Flask itself refuses: unknown paths, wrong methods, bodies that are too long."""
    if isinstance(error, RequestEntityTooLarge):
        # 413 would count as an outage of the service, and anybody could cause it with a long password.
        return _answer_error(InvalidCall(f"The body has more than {MAX_BODY} bytes."))
    response = text(f"{error.name}.", error.code or 500)
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def _answer_fault(error: Exception) -> Response:
    log.error("call_failed", exception=type(error).__name__, places=failure_lines(error))
    return text("The service has failed.", 500)
