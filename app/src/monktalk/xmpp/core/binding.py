"""Resource binding (RFC 6120 section 7), and enabling and resuming stream management (XEP-0198)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from monktalk.common.jid import JID, InvalidJID, prepare_resource
from monktalk.common.logging import get_logger
from monktalk.xmpp.core.session import Session
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError, StreamError
from monktalk.xmpp.protocol.sm import StreamManagement
from monktalk.xmpp.protocol.stanza import IQ, Stanza, error_reply, iq_result
from monktalk.xmpp.protocol.xmltree import escape, find, text_of
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from monktalk.xmpp.core.c2s import ClientStream
    from monktalk.xmpp.core.host import VirtualHost

log = get_logger(__name__)

_BIND = ns.qname(ns.BIND, "bind")
_ENABLE = ns.qname(ns.STREAM_MANAGEMENT, "enable")
_RESUME = ns.qname(ns.STREAM_MANAGEMENT, "resume")
_TRUE = ("true", "1")


def features(host: VirtualHost) -> bytes:
    """The features of an authenticated stream that is not bound."""
    parts = [f"<bind xmlns='{ns.BIND}'/><session xmlns='{ns.SESSION}'><optional/></session>"]
    if host.stream_management.enabled:
        parts.append(f"<sm xmlns='{ns.STREAM_MANAGEMENT}'/>")
    return "".join(parts).encode()


def handle(stream: ClientStream, element: Stanza) -> bool:
    """Handle an element of an authenticated stream that is not bound; False when it has no business there."""
    if element.name == _RESUME:
        _resume(stream, element)
    elif element.name == _ENABLE:
        _fail(stream, "unexpected-request")
    elif element.name == IQ and element.type == "set" and element.payloads == [_BIND]:
        _bind(stream, element)
    else:
        return False
    return True


def handle_bound(stream: ClientStream, element: Stanza) -> bool:
    """Handle an element that is no stanza on a bound stream; False when it has no business there."""
    session = stream.session
    assert session is not None
    if element.name == _ENABLE:
        _enable(session, element)
    elif element.name == _RESUME:
        _fail(stream, "unexpected-request")
    else:
        return False
    return True


def _bind(stream: ClientStream, request: Stanza) -> None:
    host, user = stream.host, stream.user
    assert host is not None
    assert user is not None
    try:
        bind = find(request.tree(), ns.BIND, "bind")
        wanted = text_of(bind, ns.BIND, "resource") if bind is not None else None
        resource = _choose_resource(host, user, wanted)
        _make_room(host, user, resource)
    except StanzaError as error:
        reply = error_reply(request, error)
        if reply is not None:
            stream.link.write(reply)
        return
    jid = JID.of(user, host.domain, resource)
    session = Session(host, jid, stream, stream.lang)
    stream.session = session
    host.arriving.pop(stream, None)
    host.add_session(session)
    payload = f"<bind xmlns='{ns.BIND}'><jid>{escape(jid.full)}</jid></bind>".encode()
    stream.link.write(iq_result(request, payload))
    log.info(
        "session_opened", jid=jid.full, ip=session.peer, tls=session.secure, stream=stream.id, link=stream.link.kind
    )
    host.hooks.session_bound(session)


def _choose_resource(host: VirtualHost, user: str, wanted: str | None) -> str:
    if not wanted:
        return secrets.token_urlsafe(9)
    try:
        resource = prepare_resource(wanted)
    except InvalidJID as error:
        raise StanzaError("bad-request", str(error)) from None
    if resource not in host.sessions.get(user, ()):
        return resource
    if host.resource_conflict == "refuse_new":
        raise StanzaError("conflict", "another session has this resource", kind="modify")
    if host.resource_conflict == "rename_new":
        return f"{resource[:200]}.{secrets.token_urlsafe(6)}"
    return resource


def _make_room(host: VirtualHost, user: str, resource: str) -> None:
    """End the session that has the resource; refuse one session too many, unless one is only waiting to be resumed."""
    sessions = host.sessions.get(user)
    if sessions is None:
        return
    old = sessions.get(resource)
    if old is not None:
        if old.stream is not None:
            old.stream.fail(StreamError("conflict", "another client has bound this resource"))
        old.end("replaced by a new connection")
        return
    if len(sessions) >= host.limits.sessions_per_account:
        waiting = next((session for session in sessions.values() if session.link is None), None)
        if waiting is None:
            raise StanzaError("resource-constraint", "the account has too many sessions")
        waiting.end("too many sessions")


def _fail(stream: ClientStream, condition: str, h: int | None = None) -> None:
    count = "" if h is None else f" h='{h}'"
    stream.link.write(
        f"<failed xmlns='{ns.STREAM_MANAGEMENT}'{count}><{condition} xmlns='{ns.STANZA_ERRORS}'/></failed>".encode()
    )


def _enable(session: Session, element: Stanza) -> None:
    options = session.host.stream_management
    assert session.stream is not None
    assert session.link is not None
    if session.sm is not None or not options.enabled:
        _fail(session.stream, "unexpected-request" if session.sm is not None else "feature-not-implemented")
        return
    resumable = element.attributes.get("resume") in _TRUE and options.resume_time > 0
    if session.host.durable:
        session.run(_enable_durably(session, resumable=resumable))
    elif resumable:
        token = secrets.token_urlsafe(16)
        session.sm = StreamManagement(token)
        session.host.server.resumable[token] = session
        session.link.write(
            f"<enabled xmlns='{ns.STREAM_MANAGEMENT}' id='{token}' resume='true' max='{int(options.resume_time)}'/>".encode()
        )
    else:
        session.sm = StreamManagement()
        session.link.write(f"<enabled xmlns='{ns.STREAM_MANAGEMENT}'/>".encode())


async def _enable_durably(session: Session, *, resumable: bool) -> None:
    """Stream management of a session that is written down: the client gets the token when that is done."""
    stream = session.stream
    try:
        token = await session.host.server.continuity.enable(session, resumable=resumable)
    except StorageUnavailable as error:
        log.warning("session_not_written", jid=session.jid.full, reason=str(error))
        if stream is not None:
            _fail(stream, "resource-constraint")
        return
    if session.closed or session.link is None or session.sm is not None:
        return
    session.sm = StreamManagement(token if resumable else None)
    options = session.host.stream_management
    if resumable:
        session.host.server.resumable[token] = session
        attributes = f" id='{token}' resume='true' max='{int(options.resume_time)}'"
    else:
        attributes = ""
    session.link.write(f"<enabled xmlns='{ns.STREAM_MANAGEMENT}'{attributes}/>".encode())
    session.host.server.continuity.changed(session)


def _resume(stream: ClientStream, element: Stanza) -> None:
    host = stream.host
    assert host is not None
    session = _to_resume(stream, element)
    if session is None and host.durable and not stream.server.bus.alone:
        stream.run(_resume_from_elsewhere(stream, element))
    elif session is None or session.sm is None:
        _fail(stream, "item-not-found")
    elif session.record is not None:
        stream.run(_resume_durably(stream, session, element.attributes.get("h")))
    else:
        session.sm.acknowledge(element.attributes.get("h"))
        _attach(stream, session)


def _to_resume(stream: ClientStream, element: Stanza) -> Session | None:
    session = stream.server.resumable.get(element.attributes.get("previd", ""))
    if session is None or session.host is not stream.host or session.jid.local != stream.user or session.sm is None:
        return None
    return session


async def _resume_from_elsewhere(stream: ClientStream, element: Stanza) -> None:
    """Another worker has just given the session up, or is about to: adopt it now."""
    assert stream.host is not None
    assert stream.user is not None
    await stream.server.adoption.adopt(stream.host, stream.user)
    session = _to_resume(stream, element)
    if session is not None:
        await _resume_durably(stream, session, element.attributes.get("h"))
    elif not stream.closed:
        _fail(stream, "item-not-found")


async def _resume_durably(stream: ClientStream, session: Session, h: str | None) -> None:
    """Resume a session that is written down, when storage and client agree."""
    try:
        resumed = await session.host.server.continuity.resume(session, h)
    except StorageUnavailable as error:
        log.warning("session_not_resumed", jid=session.jid.full, reason=str(error))
        stream.fail(StreamError("resource-constraint", "the storage can't be reached, try again later"), resumable=True)
        return
    if stream.closed:
        return
    if resumed:
        _attach(stream, session)
    else:
        _fail(stream, "item-not-found")


def _attach(stream: ClientStream, session: Session) -> None:
    """Go on with the session on this stream."""
    host, sm = session.host, session.sm
    assert sm is not None
    old = session.stream
    if old is not None:
        session.detach()
        old.session = None
        old.fail(StreamError("conflict", "the session was resumed on another connection"))
    stream.server.awake(session)
    stream.session = session
    host.arriving.pop(stream, None)
    # What is told is stored, where the session is written down.
    sm.rewind(session.record.handled if session.record is not None else sm.handled)
    stream.link.write(f"<resumed xmlns='{ns.STREAM_MANAGEMENT}' previd='{sm.token}' h='{sm.h}'/>".encode())
    log.info("session_resumed", jid=session.jid.full, ip=stream.peer, again=len(sm.queue), stream=stream.id)
    session.attach(stream)
    host.hooks.session_resumed(session)
