"""What gunicorn needs to be told to serve this contract: raw UTF-8 in queries, and no request in any log line."""

from __future__ import annotations

import logging
import re
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gunicorn.glogging import Logger
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

from monktalk.auth.loader import failure_lines
from monktalk.common import sdnotify
from monktalk.common.logging import get_logger

if TYPE_CHECKING:
    from typing import Any

REQUEST_LINE_LIMIT: Final = 32 * 1024
"""Bytes of a request line: three parameters of 1023 bytes, percent-encoded, with room to spare.

gunicorn's own limit ends below that, and what is beyond is answered with 400, not 414: a status that the XMPP server
does not know counts as an outage of the service, and anybody could cause one with a long password.
"""

_WATCHDOG_INTERVAL: Final = sdnotify.watchdog_interval()
"""Read in gunicorn's master, which systemd has started and watches; workers inherit it."""

_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]")

log = get_logger(__name__)


class LenientRequest(Request):  # type: ignore[misc]  # gunicorn ships no types
    """A request whose target may have raw UTF-8 in it, as Erlang's HTTP clients send it (RFC 9112 forbids it)."""

    def parse_request_line(self, line_bytes: bytes) -> None:
        """Parse the line as if the client had percent-encoded it."""
        super().parse_request_line(_NOT_ASCII.sub(lambda match: b"%%%02X" % match[0][0], line_bytes))

    def read_line(self, unreader: Any, buf: Any, limit: int = 0) -> Any:
        """Read the request line, within this service's own limit."""
        del limit
        return super().read_line(unreader, buf, REQUEST_LINE_LIMIT)


class LenientParser(RequestParser):  # type: ignore[misc]  # gunicorn ships no types
    """Makes `LenientRequest`."""

    mesg_class = LenientRequest


class AuthWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's threaded worker with that parser, and with errors that repeat nothing of a request.

    It also feeds systemd's watchdog: as long as a worker's loop turns, the service answers.
    """

    _fed = 0.0

    def notify(self) -> None:
        """Tell the master, and the service manager where there is one, that the loop turns; called about once a second."""
        super().notify()
        now = time.monotonic()
        if _WATCHDOG_INTERVAL is not None and now - self._fed >= _WATCHDOG_INTERVAL:
            self._fed = now
            try:
                sdnotify.notify("WATCHDOG=1")
            except OSError as error:
                log.warning("manager_not_told", reason=str(error))

    def enqueue_req(self, conn: Any) -> None:
        """Hand a connection to a thread; a new one gets its parser before gunicorn makes one."""
        if conn.parser is None:
            conn.parser = LenientParser(self.cfg, conn.sock, conn.client)
        super().enqueue_req(conn)

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer a request. gunicorn sends head and body one after the other: keep them together in one packet."""
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        try:
            return bool(super().handle_request(req, conn))
        finally:
            with suppress(OSError):  # closed meanwhile
                conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer a request that cannot be parsed, or that failed outside of the application.

        gunicorn's own method logs and repeats what is wrong, and that may be a query with a password in it.
        """
        del req
        if isinstance(exc, ParseException):
            status, body = "400 Bad Request", "The request is malformed."
            log.warning("request_refused", address=addr[0] if addr else "unknown", reason=type(exc).__name__)
        else:
            status, body = "500 Internal Server Error", "The service has failed."
            log.error("request_failed", exception=type(exc).__name__, places=failure_lines(exc))
        answer = (
            f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        try:
            write_nonblock(client, answer.encode())
        except OSError:
            log.debug("answer_not_sent", reason="the client has gone away")


class AuthLogger(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """Sends gunicorn's own messages where all others go. There is no access log: it would be a list of passwords."""

    access_log_enabled = False

    def setup(self, cfg: Any) -> None:
        """Take gunicorn's handlers away; the level is that of the root logger, but never `debug`.

        At `debug`, gunicorn logs what it has received of requests that break off.
        """
        self.cfg = cfg
        for logger in (self.error_log, self.access_log):
            for handler in list(logger.handlers):
                logger.removeHandler(handler)
        self.error_log.propagate = True
        self.error_log.setLevel(max(logging.INFO, logging.getLogger().level))

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Log nothing."""
