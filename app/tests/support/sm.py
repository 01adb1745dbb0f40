"""Stream management (XEP-0198) as conversations need it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from xml.etree import ElementTree as ET

from tests.support.accounts import Account
from tests.support.client import Client
from tests.support.matching import SM
from tests.support.server import Server

ENABLED = f"<enabled xmlns='{SM}' id='{{any}}' resume='true' max='{{any}}'/>"
SHORT = {"stream_management": {"resume_time": "1 s"}}


def message(text: str, to: str, sender: str | None = None, *, inner: str = "") -> str:
    """A chat message, as it is sent or (with a sender) as it arrives."""
    stamped = f" from='{sender}'" if sender else ""
    return f"<message{stamped} to='{to}' type='chat'><body>{text}</body>{inner}</message>"


def bodies(nodes: Iterable[ET.Element]) -> list[str]:
    """The bodies of the messages among the stanzas."""
    return [node.findtext("{jabber:client}body") or "" for node in nodes if node.tag.endswith("}message")]


async def enable(client: Client) -> str:
    """Enable stream management with resumption; returns the id."""
    await client.send(f"<enable xmlns='{SM}' resume='true'/>")
    return (await client.receives(ENABLED)).get("id", "")


async def managed(server: Server, account: Callable[..., Account], name: str = "juliet") -> tuple[Client, str]:
    """An available session with stream management, and the id to resume it by."""
    client = await server.login(account(name))
    token = await enable(client)
    await client.available()
    return client, token


async def resume(server: Server, lost: Client, token: str, h: int) -> Client:
    """Resume the session on a new connection, having handled ``h`` stanzas."""
    client = await server.authenticated(lost.account)
    await client.send(f"<resume xmlns='{SM}' previd='{token}' h='{h}'/>")
    answer = await client.receives(f"<resumed xmlns='{SM}' previd='{token}' h='{{any}}'/>")
    client.full = lost.full
    client.handled = int(answer.get("h", ""))
    return client


async def cannot_resume(server: Server, account: Account, token: str, condition: str = "item-not-found") -> Client:
    """Resuming is refused; returns the stream, on which a resource may still be bound."""
    client = await server.authenticated(account)
    await client.send(f"<resume xmlns='{SM}' previd='{token}' h='0'/>")
    await client.receives(
        f"<failed xmlns='{SM}'>{{more}}<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    )
    return client
