"""Messages: sending them in somebody's name, and clearing up those that wait for somebody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from monktalk.common.jid import JID, InvalidJID
from monktalk.xmpp.admin.commands.sessions import session_of
from monktalk.xmpp.admin.registry import CommandError, Scope, UsageError, command
from monktalk.xmpp.core import administration
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError, StreamError
from monktalk.xmpp.protocol.stanza import IQ, MESSAGE, PRESENCE, Stanza
from monktalk.xmpp.protocol.stream import StreamFault, XmlStream

if TYPE_CHECKING:
    from monktalk.xmpp.admin.context import Context
    from monktalk.xmpp.core.server import Server
    from monktalk.xmpp.protocol.xmltree import Element

GROUP: Final = "Messages"

_HEADER: Final = f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' version='1.0'>".encode()
_DAY: Final = 86_400


@command("send_message_chat", "FROM TO BODY", "Send a chat message to a JID of this server, in anybody's name.")
async def send_message_chat(context: Context, sender: str, to: str, body: str) -> str:
    """It is delivered, or kept, as any other message."""
    return _send(context, sender, to, body)


@command("send_message_headline", "FROM TO SUBJECT BODY", "Send a headline to a JID of this server, in anybody's name.")
async def send_message_headline(context: Context, sender: str, to: str, subject: str, body: str) -> str:
    """Headlines are not kept for those who are not online."""
    return _send(context, sender, to, body, subject)


def _send(context: Context, sender: str, to: str, body: str, subject: str | None = None) -> str:
    """Send a chat message, or with a subject a headline."""
    recipient = _jid(to, "Receiver")
    kind = "chat" if subject is None else "headline"
    try:
        administration.send_message(context.server, _jid(sender, "Sender"), recipient, body, kind=kind, subject=subject)
    except StanzaError as error:
        raise CommandError(f"Nobody takes the message to {recipient}: {error}") from None
    return f"Message sent to {recipient}"


def _jid(text: str, role: str) -> JID:
    try:
        return JID.parse(text)
    except InvalidJID as error:
        raise CommandError(f"{role} JID is invalid: {error}") from None


@command(
    "send_stanza_c2s",
    "USER HOST RESOURCE STANZA",
    "Handle a stanza as if a session had sent it itself.",
    scope=Scope.HOME,
)
async def send_stanza_c2s(context: Context, user: str, domain: str, resource: str, text: str) -> str:
    """The stanza is XML, in the namespace jabber:client where it names none; its answer goes to the client."""
    session = session_of(context, user, domain, resource)
    stanza = parse_stanza(context.server, text)
    try:
        session.inject(stanza)
    except (StanzaError, StreamError) as error:
        raise CommandError(f"Stanza is refused: {error}") from None
    return "Stanza has been sent"


def parse_stanza(server: Server, text: str) -> Stanza:
    """One stanza written by hand, read as if a client had sent it. Raises :class:`CommandError`."""
    stanza = _parse(server, text)
    if stanza.name not in (MESSAGE, PRESENCE, IQ):
        raise CommandError("Stanza is incorrect: write one message, presence or iq")
    return stanza


def parse_element(server: Server, text: str) -> Element:
    """One element written by hand. Raises :class:`CommandError`."""
    return _parse(server, text).tree()


def _parse(server: Server, text: str) -> Stanza:
    """Input of operators passes the checks that clients' input passes: no DTDs, limits on depth and attributes."""
    data = text.strip().encode()
    stream = XmlStream(server.parsers, len(data) + len(_HEADER))
    found = []
    for event in [*stream.receive(_HEADER), *(stream.receive(data) if data else ())]:
        if isinstance(event, StreamFault):
            raise CommandError(f"Stanza is incorrect: {event.error}")
        if isinstance(event, Stanza):
            found.append(event)
    if len(found) != 1:
        raise CommandError("Stanza is incorrect: write one whole XML element")
    return found[0]


@command("delete_expired_messages", "[HOST]", "Delete the messages that have waited longer than their sender wanted.")
async def delete_expired_messages(context: Context, domain: str | None = None) -> str:
    """Of all hosts, or of one."""
    now = context.server.clock.now()
    offline = context.server.storage.offline
    deleted = sum([await offline.delete_expired(name, now) for name in _domains(context, domain)])
    return f"Deleted {deleted} expired messages"


@command("delete_old_messages", "[HOST] DAYS", "Delete the messages that have waited for more than that many days.")
async def delete_old_messages(context: Context, *arguments: str) -> str:
    """Of all hosts, or of one."""
    days = arguments[-1]
    if not days.isdecimal():
        raise UsageError(f"DAYS is a number of days, not {days!r}.")
    before = context.server.clock.now() - int(days) * _DAY
    offline = context.server.storage.offline
    domains = _domains(context, arguments[0] if len(arguments) > 1 else None)
    deleted = sum([await offline.delete_older(name, before) for name in domains])
    return f"Deleted {deleted} messages older than {days} days"


def _domains(context: Context, domain: str | None) -> list[str]:
    return [context.host(domain).domain] if domain is not None else list(context.server.hosts)
