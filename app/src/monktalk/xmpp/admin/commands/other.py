"""Last activity and private storage of accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from monktalk.xmpp.admin.commands.messages import parse_element
from monktalk.xmpp.admin.registry import CommandError, UsageError, command
from monktalk.xmpp.core.administration import ask_as
from monktalk.xmpp.modules.last import Last, Logout
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.xmltree import element, to_bytes

if TYPE_CHECKING:
    from monktalk.xmpp.admin.context import Context

GROUP: Final = "Other"


@command("set_last", "USER HOST TIMESTAMP STATUS", "Set when a user was here last, in seconds since 1970.")
async def set_last(context: Context, user: str, domain: str, timestamp: str, status: str) -> str:
    """What a request for last activity (XEP-0012) tells from now on."""
    host, local = await context.existing(user, domain)
    if not timestamp.isdecimal():
        raise UsageError(f"TIMESTAMP is a number of seconds, such as `date +%s` prints, not {timestamp!r}.")
    module = host.modules.get(Last.name)
    if not isinstance(module, Last):
        raise CommandError(f"The module last is not enabled for {host.domain}.")
    await module.remember(local, Logout(float(timestamp), status))
    return f"Last activity for user {local}@{host.domain} is set as {timestamp} with status {status}"


@command("private_get", "USER HOST ELEMENT NAMESPACE", "Print an element of a user's private storage.")
async def private_get(context: Context, user: str, domain: str, name: str, namespace: str) -> str:
    """The element as XML; empty when nothing is stored under that name."""
    host, local = await context.existing(user, domain)
    wanted = parse_element(context.server, to_bytes(element(namespace, name)).decode())
    try:
        answer = await ask_as(host, local, "get", element(ns.PRIVATE, "query", None, wanted))
    except StanzaError as error:
        raise CommandError(f"The element can't be read: {error}") from None
    assert answer is not None
    return "".join(to_bytes(child).decode() for child in answer)


@command("private_set", "USER HOST ELEMENT", "Put an element, written as XML, into a user's private storage.")
async def private_set(context: Context, user: str, domain: str, text: str) -> str:
    """It takes the place of the one of the same name and namespace."""
    host, local = await context.existing(user, domain)
    stored = parse_element(context.server, text)
    try:
        await ask_as(host, local, "set", element(ns.PRIVATE, "query", None, stored))
    except StanzaError as error:
        raise CommandError(f"The element can't be stored: {error}") from None
    return f"Private storage of {local}@{host.domain} changed"
