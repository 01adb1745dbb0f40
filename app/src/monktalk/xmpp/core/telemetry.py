"""The figures of one server process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monktalk.common.metrics import Registry

if TYPE_CHECKING:
    from monktalk.xmpp.core.server import Server


class Telemetry:
    """Counters that the core keeps, and gauges that look when asked."""

    def __init__(self, server: Server) -> None:
        self.registry = Registry()
        counter = self.registry.counter
        self.logins = counter("monktalk_logins_total", "Successful logins.")
        self.login_failures = counter("monktalk_login_failures_total", "Refused logins.")
        self.messages = counter("monktalk_messages_total", "Messages routed.")
        self.presences = counter("monktalk_presences_total", "Presence stanzas routed.")
        self.iqs = counter("monktalk_iqs_total", "IQ stanzas routed.")
        self.connections_accepted = counter("monktalk_connections_total", "Connections accepted.")
        self.connections_refused = counter("monktalk_connections_refused_total", "Connections refused by a limit.")
        self.registry.gauge(
            "monktalk_sessions",
            "Bound sessions, those that may be resumed included.",
            lambda: sum(len(resources) for host in server.hosts.values() for resources in host.sessions.values()),
        )
        self.registry.gauge("monktalk_resumable_sessions", "Sessions whose client is away.", lambda: len(server.away))
        self.registry.gauge("monktalk_start_time_seconds", "When the process began.", lambda: server.started)
