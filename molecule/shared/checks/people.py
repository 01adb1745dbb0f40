"""People with slixmpp, a client that we did not write. They live in a thread, so that tests can do other things meanwhile."""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import slixmpp

from checks.waiting import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

# Refusals are part of the tests, and told as such.
logging.getLogger("slixmpp").setLevel(logging.CRITICAL)

T = TypeVar("T")
_PATIENCE = 30.0


class Refused(Exception):
    """The server does not let the client in; says why."""


class _Client(slixmpp.ClientXMPP):
    """The client; everything in it happens in the thread of the loop."""

    def __init__(self, jid: str, password: str, context: ssl.SSLContext) -> None:
        super().__init__(jid, password)
        self.context = context
        self.began: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.received: list[tuple[str, str]] = []
        self.lost: list[str] = []
        for plugin in ("xep_0030", "xep_0054", "xep_0199"):
            self.register_plugin(plugin)
        self.auto_authorize = True
        self.auto_subscribe = True
        self.add_event_handler("session_start", self._start)
        self.add_event_handler("message", self._receive)
        self.add_event_handler("disconnected", self._lose)
        self.add_event_handler("failed_all_auth", lambda _: self._refuse("no mechanism was accepted"))
        self.add_event_handler("stream_error", lambda error: self._refuse(f"stream error {error['condition']}"))
        self.add_event_handler("connection_failed", lambda error: self._refuse(f"connection failed: {error}"))
        self.add_event_handler("ssl_invalid_chain", lambda error: self._refuse(f"certificate: {error}"))

    def get_ssl_context(self) -> ssl.SSLContext:
        """As strict as clients are."""
        return self.context

    def ends(self) -> None:
        """Give the connection up, and the task that slixmpp keeps for what is sent."""
        self.abort()
        if self._run_out_filters:
            self._run_out_filters.cancel()

    async def _start(self, _event: object) -> None:
        self.send_presence()
        await self.get_roster()
        if not self.began.done():
            self.began.set_result(self.boundjid.full)

    def _receive(self, message: slixmpp.Message) -> None:
        if message["body"]:
            self.received.append((message["from"].bare, message["body"]))

    def _lose(self, reason: object) -> None:
        self.lost.append(str(reason))
        self._refuse(f"disconnected: {reason}")

    def _refuse(self, reason: str) -> None:
        if not self.began.done():
            self.began.set_exception(Refused(reason))
            self.cancel_connection_attempt()


class Person:
    """Somebody who is online."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: _Client) -> None:
        self._loop = loop
        self._client = client
        self.jid = client.boundjid.bare

    def _do(self, work: Callable[[], Awaitable[T]]) -> T:
        async def carry_out() -> T:
            return await asyncio.wait_for(work(), _PATIENCE)

        return asyncio.run_coroutine_threadsafe(carry_out(), self._loop).result(_PATIENCE + 5)

    @property
    def lost(self) -> list[str]:
        """How often, and why, the connection was lost."""
        return list(self._client.lost)

    def says(self, to: str, body: str) -> None:
        """Send a chat message."""

        async def work() -> None:
            self._client.send_message(mto=slixmpp.JID(to), mbody=body, mtype="chat")

        self._do(work)

    def hears(self, sender: str, body: str, seconds: float = _PATIENCE) -> None:
        """Wait for a message."""
        until(lambda: (sender, body) in self._client.received, f"{body!r} from {sender} to {self.jid}", seconds)

    def answers(self) -> bool:
        """Whether the server still answers on this connection."""

        async def work() -> bool:
            await self._client.plugin["xep_0199"].send_ping(
                slixmpp.JID(self._client.boundjid.domain), timeout=_PATIENCE
            )
            return True

        return self._do(work)

    def befriends(self, other: str, name: str = "") -> None:
        """Put somebody into the roster, and ask for presence."""

        async def work() -> None:
            answered = self._client.update_roster(slixmpp.JID(other), name=name or None)
            assert answered is not None
            await answered
            self._client.send_presence_subscription(pto=slixmpp.JID(other))

        self._do(work)

    def roster(self) -> dict[str, str]:
        """Contacts and their subscriptions, freshly read."""

        async def work() -> dict[str, str]:
            # Without a version, for the server would say that nothing is new.
            question: Any = self._client.make_iq_get()
            question.enable("roster")
            answer: Any = await question.send(timeout=_PATIENCE)
            return {str(jid): str(item["subscription"]) for jid, item in answer["roster"]["items"].items()}

        return self._do(work)

    def publishes_vcard(self, full_name: str) -> None:
        """Set the own vCard."""

        async def work() -> None:
            card = self._client.plugin["xep_0054"].make_vcard()
            card["FN"] = full_name
            await self._client.plugin["xep_0054"].publish_vcard(vcard=card)

        self._do(work)

    def vcard_of(self, jid: str) -> str:
        """The full name in somebody's vCard."""

        async def work() -> str:
            answer: Any = await self._client.plugin["xep_0054"].get_vcard(slixmpp.JID(jid), local=False, cached=False)
            return str(answer["vcard_temp"]["FN"])

        return self._do(work)

    def leaves(self) -> None:
        """Log out."""

        async def work() -> None:
            self._client.cancel_connection_attempt()
            await self._client.disconnect(wait=2)
            self._client.ends()

        self._do(work)


class People:
    """Lets people log in."""

    def __init__(self, address: str, authority: str) -> None:
        self.address = address
        self.authority = authority
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="people")
        self._thread.start()
        self._online: list[Person] = []

    def context(self, *, check_name: bool = True) -> ssl.SSLContext:
        """What clients demand: a certificate by an authority that they know, for the name that they connect to.

        Args:
            check_name: False for a domain that the certificate is not for.
        """
        context = ssl.create_default_context(cadata=self.authority)
        context.check_hostname = check_name
        return context

    def login(
        self, jid: str, password: str, port: int = 5222, *, direct: bool = False, check_name: bool = True
    ) -> Person:
        """Log somebody in.

        Args:
            jid: The address.
            password: The password.
            port: The port.
            direct: TLS from the first byte, instead of STARTTLS.
            check_name: Whether the certificate has to be for the address's domain.

        Raises:
            Refused: The server does not let them in.
        """

        async def work() -> _Client:
            client = _Client(jid, password, self.context(check_name=check_name))
            client.enable_direct_tls = direct
            client.enable_starttls = not direct
            client.enable_plaintext = False
            _ = client.connect(self.address, port)
            try:
                await asyncio.wait_for(client.began, _PATIENCE)
            except BaseException:
                client.ends()
                raise
            return client

        person = Person(self._loop, self._wait(work()))
        self._online.append(person)
        return person

    def close(self) -> None:
        """Log everybody out and end the thread."""
        for person in self._online:
            person.leaves()

        async def end() -> None:
            # slixmpp leaves tasks of its own behind.
            rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        self._wait(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE + 5)
