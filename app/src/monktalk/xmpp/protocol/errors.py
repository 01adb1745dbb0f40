"""Stream errors (RFC 6120 section 4.9.3) and stanza errors (section 8.3.3) as exceptions that know their wire form."""

from __future__ import annotations

from xml.sax.saxutils import escape

from monktalk.xmpp.protocol import namespaces as ns

STREAM_CONDITIONS = frozenset(
    {
        "bad-format",
        "bad-namespace-prefix",
        "conflict",
        "connection-timeout",
        "host-gone",
        "host-unknown",
        "improper-addressing",
        "internal-server-error",
        "invalid-from",
        "invalid-namespace",
        "invalid-xml",
        "not-authorized",
        "not-well-formed",
        "policy-violation",
        "remote-connection-failed",
        "reset",
        "resource-constraint",
        "restricted-xml",
        "see-other-host",
        "system-shutdown",
        "undefined-condition",
        "unsupported-encoding",
        "unsupported-feature",
        "unsupported-stanza-type",
        "unsupported-version",
    }
)

STANZA_CONDITIONS = {
    "bad-request": "modify",
    "conflict": "cancel",
    "feature-not-implemented": "cancel",
    "forbidden": "auth",
    "gone": "cancel",
    "internal-server-error": "cancel",
    "item-not-found": "cancel",
    "jid-malformed": "modify",
    "not-acceptable": "modify",
    "not-allowed": "cancel",
    "not-authorized": "auth",
    "policy-violation": "modify",
    "recipient-unavailable": "wait",
    "redirect": "modify",
    "registration-required": "auth",
    "remote-server-not-found": "cancel",
    "remote-server-timeout": "wait",
    "resource-constraint": "wait",
    "service-unavailable": "cancel",
    "subscription-required": "auth",
    "undefined-condition": "cancel",
    "unexpected-request": "wait",
}
"""Every stanza error condition with the type that RFC 6120 associates with it."""


class StreamError(Exception):
    """A fault that ends the stream: the condition is sent in ``<stream:error/>`` and the stream is closed.

    ``text`` is shown to the peer, so it says what was wrong and never holds a secret. ``application`` is an
    application-specific condition, as serialised XML.
    """

    def __init__(self, condition: str, text: str = "", *, application: bytes = b"") -> None:
        if condition not in STREAM_CONDITIONS:
            raise ValueError(f"{condition!r} is no stream error condition of RFC 6120")
        super().__init__(f"{condition}: {text}" if text else condition)
        self.condition = condition
        self.text = text
        self.application = application

    def to_bytes(self) -> bytes:
        """The ``<stream:error/>`` element."""
        text = f"<text xmlns='{ns.STREAM_ERRORS}' xml:lang='en'>{escape(self.text)}</text>" if self.text else ""
        return (
            f"<stream:error><{self.condition} xmlns='{ns.STREAM_ERRORS}'/>{text}".encode()
            + self.application
            + b"</stream:error>"
        )


class StanzaError(Exception):
    """A refusal of one stanza: raised by handlers, answered to the sender as a stanza of type ``error``.

    ``kind`` is the error type (auth, cancel, continue, modify, wait); RFC 6120 gives each condition a default.
    ``application`` is an application-specific condition, as serialised XML.
    """

    def __init__(self, condition: str, text: str = "", *, kind: str | None = None, application: bytes = b"") -> None:
        super().__init__(f"{condition}: {text}" if text else condition)
        self.condition = condition
        self.text = text
        self.kind = kind or STANZA_CONDITIONS[condition]
        self.application = application

    def to_bytes(self) -> bytes:
        """The ``<error/>`` element."""
        text = f"<text xmlns='{ns.STANZA_ERRORS}' xml:lang='en'>{escape(self.text)}</text>" if self.text else ""
        return (
            f"<error type='{self.kind}'><{self.condition} xmlns='{ns.STANZA_ERRORS}'/>{text}".encode()
            + self.application
            + b"</error>"
        )
