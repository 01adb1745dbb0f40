"""IQ requests that the server answers itself, for a host or on behalf of an account (RFC 6120 section 8.2.3)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from monktalk.common.logging import get_logger
from monktalk.xmpp.core.module import IqHandler, IqKey, Target
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.errors import StanzaError
from monktalk.xmpp.protocol.namespaces import qname
from monktalk.xmpp.protocol.stanza import Stanza, error_reply, iq_result
from monktalk.xmpp.storage.interfaces import StorageUnavailable

if TYPE_CHECKING:
    from monktalk.xmpp.core.host import VirtualHost
    from monktalk.xmpp.core.module import Reply
    from monktalk.xmpp.core.server import Server
    from monktalk.xmpp.core.session import Session

log = get_logger(__name__)

STORAGE_DOWN = StanzaError("resource-constraint", "the storage can't be reached, try again later")


def check_request(stanza: Stanza) -> None:
    """Raises :class:`StanzaError` unless a request has the one child element that RFC 6120 section 8.2.3 asks for."""
    if len(stanza.payloads) != 1:
        raise StanzaError("bad-request", "an IQ of type get or set has one child element")


class IqDispatcher:
    """Finds the module that handles a request, and sends its answer."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._always: dict[IqKey, IqHandler] = {
            ("set", target, qname(ns.SESSION, "session")): _open_session for target in (Target.HOST, Target.SELF)
        }

    def handle(self, host: VirtualHost, stanza: Stanza, session: Session | None) -> None:
        """Handle an IQ stanza that is for ``host`` or for one of its accounts.

        ``session`` is the sender's, when he is connected here: then requests that wait keep his later stanzas waiting, so
        that they are handled in order (RFC 6120 section 10.1). Raises :class:`StanzaError` for a request to be refused.
        """
        kind = stanza.attributes.get("type")
        if kind in ("result", "error"):
            return
        if kind not in ("get", "set"):
            raise StanzaError("bad-request", "the type of an IQ is get, set, result or error")
        check_request(stanza)
        key = (kind, host.target_of(stanza), stanza.payloads[0])
        handler = host.iq_handlers.get(key) or self._always.get(key)
        if handler is None:
            raise StanzaError("service-unavailable")
        outcome = handler(stanza, session)
        if isinstance(outcome, Awaitable):
            waiting = self._finish(stanza, outcome, session)
            if session is not None:
                session.run(waiting)
            else:
                _ = self._server.spawn(waiting)
        else:
            self._reply(stanza, iq_result(stanza, outcome), session)

    async def _finish(self, stanza: Stanza, outcome: Awaitable[Reply], session: Session | None) -> None:
        try:
            reply: bytes | None = iq_result(stanza, await outcome)
        except StanzaError as error:
            reply = error_reply(stanza, error)
        except StorageUnavailable:
            reply = error_reply(stanza, STORAGE_DOWN)
        except Exception:
            log.exception("iq_failed", payload=stanza.payloads[0], host=stanza.sender.domain)
            reply = error_reply(stanza, StanzaError("internal-server-error"))
        if reply is not None:
            self._reply(stanza, reply, session)

    def _reply(self, stanza: Stanza, reply: bytes, session: Session | None) -> None:
        if session is not None:
            session.send(reply)
        else:
            self._server.send_to(stanza.sender, reply)


def _open_session(_request: Stanza, _session: Session | None) -> None:
    """What clients of RFC 3921 ask for after binding; RFC 6121 appendix E makes it a formality."""
