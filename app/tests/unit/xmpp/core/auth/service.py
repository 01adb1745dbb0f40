"""A socket that speaks for an authentication service, as badly as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from monktalk.common import logging as our_logging
from monktalk.common import scram

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator


@dataclass
class Request:
    method: str
    path: str
    raw_target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def call(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def form(self) -> dict[str, str]:
        """The parameters, wherever they were sent."""
        text = self.body.decode() if self.method == "POST" else self.raw_target.partition("?")[2]
        return {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}


def reply(status: int, body: bytes | str = b"", *headers: str) -> bytes:
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class Service:
    """Set `answers` by call, `responder` for everything else; `requests` has what came."""

    answers: dict[str, bytes] = field(default_factory=dict)
    responder: Callable[[Request, asyncio.StreamWriter], Awaitable[None]] | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    server: asyncio.Server | None = None
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def calls(self, name: str = "") -> list[Request]:
        return [request for request in self.requests if name in ("", request.call)]

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections from now on, and end those that are there."""
        assert self.server is not None
        self.server.close()
        for writer in list(self.writers):
            writer.close()
        await asyncio.gather(*self.tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        number = self.connections
        self.writers.add(writer)
        try:
            # The peer going away is how every connection of a test ends.
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while not writer.is_closing():
                    await self._answer(await self._request(reader, number), writer)
        finally:
            writer.close()
            self.writers.discard(writer)
            self.tasks.discard(task)

    async def _request(self, reader: asyncio.StreamReader, number: int) -> Request:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(method, target.partition("?")[0], target, headers, body, number)
        self.requests.append(request)
        return request

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        answer = self.answers.get(request.call)
        if answer is not None:
            writer.write(answer)
        elif self.responder is not None:
            await self.responder(request, writer)
        else:
            writer.write(reply(404))
        await writer.drain()


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Service]:
    service = Service()
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


class Accounts:
    """What an authentication service does with right and wrong passwords; it answers for a `Service`."""

    def __init__(self, service: Service, form: str) -> None:
        self.form = form
        self.passwords: dict[str, str] = {}
        self.stored: dict[str, str] = {}
        service.responder = self.respond

    def set(self, user: str, password: str) -> None:
        self.passwords[user] = self.stored[user] = password
        if self.form == "scram":
            self.stored[user] = scram.format_multi(scram.derive_all(password))

    async def respond(self, request: Request, writer: asyncio.StreamWriter) -> None:
        form = request.form
        writer.write(getattr(self, request.call)(form["user"], form["pass"]))

    def user_exists(self, user: str, _: str) -> bytes:
        return reply(200, user if user in self.passwords else "false")

    def check_password(self, user: str, password: str) -> bytes:
        return reply(200, user if self.passwords.get(user) == password else "false")

    def get_password(self, user: str, _: str) -> bytes:
        return reply(200, self.stored[user]) if user in self.stored else reply(404)

    def register(self, user: str, password: str) -> bytes:
        if user in self.passwords:
            return reply(409)
        self.set(user, password)
        return reply(201)

    def set_password(self, user: str, password: str) -> bytes:
        if user not in self.passwords:
            return reply(404)
        self.set(user, password)
        return reply(200)

    def remove_user(self, user: str, _: str) -> bytes:
        if self.passwords.pop(user, None) is None:
            return reply(404)
        del self.stored[user]
        return reply(200)


@contextlib.contextmanager
def captured_log(level: str = "debug") -> Iterator[io.StringIO]:
    """All that any logger writes meanwhile."""
    stream = io.StringIO()
    root = logging.getLogger()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(our_logging.LineFormatter())
    before = root.level
    root.addHandler(handler)
    root.setLevel(our_logging.parse_level(level))
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
