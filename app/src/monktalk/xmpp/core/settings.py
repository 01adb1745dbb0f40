"""The options of the server's own sections; modules bring theirs (see :mod:`monktalk.xmpp.core.module`)."""

from __future__ import annotations

from monktalk.common.config import Kind, Option, Section
from monktalk.xmpp.protocol.sasl import MECHANISMS

GENERAL = Section(
    ("general",),
    "What the server is and whom it serves.",
    (
        Option("hosts", Kind.DOMAINS, doc="The domains that the server serves. They share nothing but the process."),
        Option(
            "administrators",
            Kind.STRINGS,
            (),
            doc="Bare JIDs that may use service administration (XEP-0133), for the host that they belong to.",
        ),
        Option("language", Kind.STRING, "en", doc="The default language of streams (xml:lang)."),
        Option("loglevel", Kind.CHOICE, "info", choices=("debug", "info", "warning", "error"), doc="What is logged."),
        Option(
            "log_file",
            Kind.PATH,
            None,
            doc="Log to this file, too, not to the standard error stream only.",
            restart=True,
        ),
        Option(
            "control_socket",
            Kind.PATH,
            "/run/mongooseim/control.sock",
            doc="The UNIX socket of mongooseimctl.",
            restart=True,
        ),
    ),
)

LISTEN_C2S = Section(
    ("listen", "c2s"),
    "One listener for client streams. STARTTLS and direct TLS (XEP-0368) share the port, told apart by the first byte.",
    (
        Option("address", Kind.STRING, "0.0.0.0", doc="The address to listen on; `::` for IPv6."),  # noqa: S104 - a public port by default
        Option("port", Kind.INTEGER, 5222, minimum=0, maximum=65535, doc="The TCP port; 0 takes a free one."),
        Option("starttls_required", Kind.BOOLEAN, True, doc="Refuse to authenticate anybody on a stream in clear."),
        Option("direct_tls", Kind.BOOLEAN, True, doc="Accept TLS from the first byte."),
        Option(
            "proxy_protocol",
            Kind.NETWORKS,
            (),
            doc="Proxies, as addresses or networks: connections from there must begin with a PROXY header (version 1 or "
            "2), and count for the client that it names. The header of anybody else is not believed.",
        ),
        Option("proxies_only", Kind.BOOLEAN, False, doc="Refuse connections that do not come from `proxy_protocol`."),
        Option(
            "backlog",
            Kind.INTEGER,
            1024,
            minimum=1,
            maximum=65535,
            doc="Connections waiting to be accepted.",
            restart=True,
        ),
    ),
    multiple=True,
)

READINESS = Section(
    ("readiness",),
    "Where a load balancer asks by HTTP whether the server takes new connections: `GET /ready`, and `GET /live`.",
    (
        Option("address", Kind.STRING, "127.0.0.1", doc="The address to listen on."),
        Option("port", Kind.INTEGER, None, minimum=0, maximum=65535, doc="The TCP port; without one nobody can ask."),
        Option("allowed", Kind.NETWORKS, ("127.0.0.0/8", "::1/128"), doc="The networks that may ask."),
    ),
)

TLS = Section(
    ("tls",),
    "The certificate. A host may have its own, chosen by the name that the client asks for (SNI).",
    (
        Option("certificate", Kind.PATH, None, doc="Leaf and chain, PEM."),
        Option("key", Kind.PATH, None, doc="The private key, PEM."),
        Option("minimum_version", Kind.CHOICE, "1.2", choices=("1.2", "1.3"), doc="The oldest TLS version accepted."),
        Option(
            "ciphers",
            Kind.STRING,
            "ECDHE+AESGCM:ECDHE+CHACHA20",
            doc="Cipher suites of TLS 1.2, in OpenSSL's notation.",
        ),
    ),
    per_host=True,
)

AUTH = Section(
    ("auth",),
    "The authentication service (HTTP) and how clients may authenticate.",
    (
        Option("url", Kind.URL, "http://127.0.0.1:3300", choices=("http", "https"), doc="Base address of the service."),
        Option("path_prefix", Kind.STRING, "/authorize/", doc="Path in front of the calls; ends in a slash."),
        Option("username", Kind.STRING, "", doc="HTTP basic authentication: user."),
        Option("password", Kind.STRING, "", secret=True, doc="HTTP basic authentication: password."),
        Option(
            "password_format",
            Kind.CHOICE,
            "scram",
            choices=("scram", "plain"),
            doc="`scram`: credentials are fetched as SCRAM keys and checked here. `plain`: PLAIN is checked by the "
            "service, SCRAM computed from the password that it gives.",
        ),
        Option(
            "mechanisms",
            Kind.STRINGS,
            ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"),
            choices=MECHANISMS,
            doc="SASL mechanisms on offer. The -PLUS forms of the SCRAM ones are added on TLS.",
        ),
        Option("timeout", Kind.DURATION, "5 s", minimum=0.1, maximum=60, doc="How long one call may take."),
        Option("connections", Kind.INTEGER, 32, minimum=1, maximum=1024, doc="Calls under way at once."),
        Option("cache_time", Kind.DURATION, "30 s", minimum=0, maximum=3600, doc="How long an answer is remembered."),
        Option(
            "breaker_failures", Kind.INTEGER, 5, minimum=1, doc="Failed calls in a row that open the circuit breaker."
        ),
        Option("breaker_reset", Kind.DURATION, "2 s", minimum=0.1, doc="How long an open circuit breaker waits."),
    ),
    per_host=True,
)

DATABASE = Section(
    ("database",),
    "Where rosters, vCards, offline messages and accounts are kept.",
    (
        Option(
            "url",
            Kind.STRING,
            "sqlite:////var/lib/mongooseim/monktalk.db",
            secret=True,
            restart=True,
            doc="SQLAlchemy address: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST,HOST/NAME`; `memory:` keeps "
            "nothing.",
        ),
    ),
)

LIMITS = Section(
    ("limits",),
    "What a peer may use. The stanza size and the idle time are announced to clients (XEP-0478).",
    (
        Option("stanza_size", Kind.SIZE, "256 KiB", minimum=10_000, doc="Largest stanza after authentication."),
        Option("stanza_size_unauthenticated", Kind.SIZE, "10 KiB", minimum=2_000, doc="Largest element before it."),
        Option("depth", Kind.INTEGER, 64, minimum=8, maximum=1000, restart=True, doc="Levels of nested elements."),
        Option("attributes", Kind.INTEGER, 64, minimum=8, maximum=1000, restart=True, doc="Attributes of an element."),
        Option("login_time", Kind.DURATION, "60 s", minimum=1, doc="A stream that has not bound by then is closed."),
        Option(
            "idle_time",
            Kind.DURATION,
            "12 min",
            minimum=0,
            doc="A stream from which nothing comes for so long, in spite of a ping, is closed; 0 for never.",
        ),
        Option("write_time", Kind.DURATION, "30 s", minimum=1, doc="How long a client may refuse to read."),
        Option("write_buffer", Kind.SIZE, "1 MiB", minimum=65536, doc="Output held for a client that does not read."),
        Option("rate", Kind.SIZE, "1 MiB", minimum=0, doc="Bytes a second that a client may send; 0 for no limit."),
        Option("burst", Kind.SIZE, "4 MiB", minimum=65536, doc="Bytes that a client may send at once above the rate."),
        Option("rate_unauthenticated", Kind.SIZE, "16 KiB", minimum=1024, doc="The rate before authentication."),
        Option("burst_unauthenticated", Kind.SIZE, "64 KiB", minimum=8192, doc="The burst before authentication."),
        Option("pending_stanzas", Kind.INTEGER, 100, minimum=1, doc="Stanzas of a client waiting for an earlier one."),
        Option("connections", Kind.INTEGER, 100_000, minimum=1, doc="Connections at once."),
        Option("connections_per_address", Kind.INTEGER, 200, minimum=1, doc="Connections at once from one address."),
        Option(
            "accepts_per_second", Kind.INTEGER, 500, minimum=1, doc="New connections a second, the rest has to wait."
        ),
        Option("sessions_per_account", Kind.INTEGER, 10, minimum=1, doc="Resources of one account at once."),
        Option("auth_attempts", Kind.INTEGER, 3, minimum=1, doc="Failed logins on one stream before it is closed."),
        Option(
            "auth_failures_per_address",
            Kind.INTEGER,
            30,
            minimum=1,
            doc="Failed logins from one address in `auth_failure_window` before it has to wait.",
        ),
        Option(
            "auth_failures_per_account",
            Kind.INTEGER,
            10,
            minimum=1,
            doc="Failed logins of one account from one address in `auth_failure_window` before it has to wait.",
        ),
        Option("auth_failure_window", Kind.DURATION, "5 min", minimum=1, doc="How long a failed login is remembered."),
        Option("directed_presence", Kind.INTEGER, 1000, minimum=1, doc="Directed presences remembered for a session."),
    ),
    per_host=False,
)

HOST = Section(
    ("sessions",),
    "Sessions of a host.",
    (
        Option(
            "resource_conflict",
            Kind.CHOICE,
            "close_old",
            choices=("close_old", "refuse_new", "rename_new"),
            doc="When a client asks for a resource that is in use (RFC 6120, 7.7.2.2).",
        ),
        Option(
            "isolated",
            Kind.BOOLEAN,
            False,
            doc="Exchange no stanzas with the other hosts of this server, as if they were not there.",
        ),
    ),
    per_host=True,
)

STREAM_MANAGEMENT = Section(
    ("stream_management",),
    "Acknowledgements and resumption (XEP-0198).",
    (
        Option("enabled", Kind.BOOLEAN, True, doc="Offer stream management."),
        Option("resume_time", Kind.DURATION, "10 min", minimum=0, doc="How long a lost stream may be resumed."),
        Option("queue", Kind.INTEGER, 500, minimum=10, doc="Unacknowledged stanzas held for a session."),
        Option(
            "queue_size", Kind.SIZE, "2 MiB", minimum=65536, doc="Bytes of unacknowledged stanzas held for a session."
        ),
        Option("request_after", Kind.INTEGER, 5, minimum=1, doc="Ask for an acknowledgement after so many stanzas …"),
        Option("request_delay", Kind.DURATION, "1 s", minimum=0.1, doc="… or so long after the first of them."),
    ),
    per_host=True,
)

MESSAGES = Section(
    ("messages",),
    "What an acknowledgement to the sender of a message promises (XEP-0198).",
    (
        Option(
            "guarantee",
            Kind.CHOICE,
            "auto",
            choices=("auto", "durable", "memory"),
            doc="`durable`: the message is in the database, or its recipient has acknowledged it; no machine that dies takes "
            "it along. `memory`: it was handed to the recipient's connection or stored for him; faster, and what is on its "
            "way is lost with the worker. `auto` is `durable` where there is a bus.",
        ),
    ),
    per_host=True,
)

CONTACTS = Section(
    ("contacts",),
    "Contact addresses of the service (XEP-0157), as URIs.",
    tuple(
        Option(kind, Kind.STRINGS, (), doc=f"`{kind}-addresses`.")
        for kind in ("abuse", "admin", "feedback", "sales", "security", "status", "support")
    ),
    per_host=True,
)

CLUSTER = Section(
    ("cluster",),
    "Workers and nodes that serve the same users. Without a bus the server is alone.",
    (
        Option(
            "workers",
            Kind.INTEGER,
            1,
            minimum=0,
            maximum=256,
            restart=True,
            doc="Worker processes of this node; 0 is one a core. More than one need a bus.",
        ),
        Option(
            "bus",
            Kind.CHOICE,
            "none",
            choices=("none", "nats"),
            restart=True,
            doc="How workers and nodes reach each other: `nats`, through NATS servers.",
        ),
        Option(
            "servers",
            Kind.STRINGS,
            ("127.0.0.1:4222",),
            restart=True,
            doc="NATS servers as `host:port`, the node's own first: the next ones are for when it is away.",
        ),
        Option("name", Kind.STRING, "monktalk", restart=True, doc="The cluster's name; its members have the same."),
        Option("node", Kind.STRING, None, restart=True, doc="This node's name; by default the name of the machine."),
        Option("user", Kind.STRING, "", restart=True, doc="The user that the NATS servers know."),
        Option("password", Kind.STRING, "", secret=True, restart=True, doc="His password."),
        Option(
            "ca",
            Kind.PATH,
            None,
            restart=True,
            doc="The authorities (PEM) whose certificates the NATS servers must have; without it there is no TLS.",
        ),
        Option(
            "stop_time",
            Kind.DURATION,
            "30 s",
            minimum=1,
            doc="How long workers may take to stop before they are killed. Only with several.",
        ),
    ),
)

CORE_SECTIONS = (
    GENERAL,
    LISTEN_C2S,
    READINESS,
    TLS,
    AUTH,
    DATABASE,
    LIMITS,
    HOST,
    STREAM_MANAGEMENT,
    MESSAGES,
    CONTACTS,
    CLUSTER,
)
