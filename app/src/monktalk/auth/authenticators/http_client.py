"""A small blocking HTTP client for back ends: few requests, kept connections, everything bounded.

`http.client` of the standard library does the protocol. A library on top would bring redirects, proxies from the
environment, cookies and decompression, which must all be off here, and would still lack the two things that matter:
one deadline for a whole call, however slowly the answer drips, and a limit of the answer's size.
"""

from __future__ import annotations

import base64
import http.client
import io
import socket
import ssl
import time
from collections import deque
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from monktalk.auth.errors import Unavailable

if TYPE_CHECKING:
    from typing import Any

_STALE: Final = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
"""What a request on a kept connection meets when the back end has closed it meanwhile."""


class Reply(NamedTuple):
    """What a back end answers."""

    status: int
    body: bytes


class HttpClient:
    """Calls one back end. May be used by many threads.

    Args:
        url: base address, `https://host[:port]/path/`; what is asked for is put behind it.
        username, password: for HTTP basic authentication; none is sent with both empty.
        timeout: seconds for a whole call, from the connection to the last byte.
        connections: calls under way at once; more have to wait, as long as `timeout`.
        max_answer: bytes of an answer's body.
        ca_file: PEM file of the certificate authorities to trust instead of the system's.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str,
        password: str,
        timeout: float,
        connections: int,
        max_answer: int,
        ca_file: str | None,
    ) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._path = parts.path if parts.path.endswith("/") else f"{parts.path}/"
        self._timeout = timeout
        self._max_answer = max_answer
        # The default context verifies certificate and name.
        self._tls = ssl.create_default_context(cafile=ca_file) if self._secure else None
        self._headers = {"Accept": "text/plain, */*", "User-Agent": "MonkTalk"}
        if username or password:
            credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {credentials}"
        self._slots = BoundedSemaphore(connections)
        self._lock = Lock()
        self._idle: deque[http.client.HTTPConnection] = deque()

    def get(self, target: str) -> Reply:
        """Ask for `target`, path and query behind the base address; asks twice when a kept connection is stale.

        Raises:
            Unavailable: no answer, or none that can be used.
        """
        return self._call("GET", target, None, repeatable=True)

    def post(self, target: str, form: str, *, repeatable: bool) -> Reply:
        """Send a form. `repeatable` says that it does no harm to send it twice.

        Raises:
            Unavailable: no answer, or none that can be used; whether the form has arrived is unknown.
        """
        return self._call("POST", target, form.encode(), repeatable=repeatable)

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def _call(self, method: str, target: str, body: bytes | None, *, repeatable: bool) -> Reply:
        deadline = time.monotonic() + self._timeout
        if not self._slots.acquire(timeout=self._timeout):
            raise Unavailable("The domain's back end is busy.")
        try:
            # Only what may be sent twice is sent on a connection that may be closed just now.
            connection = self._kept() if repeatable else None
            if connection is not None:
                try:
                    return self._exchange(connection, method, target, body, deadline)
                except _STALE:
                    pass
            return self._exchange(self._new(), method, target, body, deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            # The texts of some of these hold the target, and with it a password.
            raise Unavailable(f"The domain's back end does not answer ({_kind(error)}).") from None
        finally:
            self._slots.release()

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, target: str, body: bytes | None, deadline: float
    ) -> Reply:
        headers = self._headers
        if body is not None:
            headers = headers | {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            _limit(connection, deadline)
            if connection.sock is None:
                connection.connect()
                _limit(connection, deadline)
            # Assigned to the instance, so that each answer is read with the deadline of its own call.
            connection.response_class = _response_class(deadline)
            connection.request(method, self._path + target, body, headers)
            response = connection.getresponse()
            content = self._read(response)
        except BaseException:
            connection.close()
            raise
        if response.will_close or not response.isclosed():
            connection.close()
        else:
            with self._lock:
                self._idle.append(connection)
        return Reply(response.status, content)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        if response.length is None and not response.chunked:
            # It would end wherever the connection ends, and "alice2" cut off may be "alice".
            raise http.client.HTTPException("no length")
        content = response.read(self._max_answer + 1)
        if len(content) > self._max_answer:
            raise http.client.HTTPException("too long")
        if response.length:
            raise http.client.IncompleteRead(b"")
        return content

    def _kept(self) -> http.client.HTTPConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _new(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)


class _DeadlineReader(io.RawIOBase):
    """Reads a socket, each time with what is left until a deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        # The socket counts the files made of it, and stays open until they are closed.
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answering:
    """What `HTTPResponse` wants of a socket: a file to read the answer from."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._sock, self._deadline))


def _response_class(deadline: float) -> type[http.client.HTTPResponse]:
    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
            super().__init__(_Answering(sock, deadline), *args, **kwargs)  # type: ignore[arg-type]  # makefile() is all it uses

    return Response


def _limit(connection: http.client.HTTPConnection, deadline: float) -> None:
    connection.timeout = _left(deadline)
    if connection.sock is not None:
        connection.sock.settimeout(connection.timeout)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("deadline")
    return left


def _kind(error: Exception) -> str:
    """Return what happened, in words that hold nothing of the request."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "time is up"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
