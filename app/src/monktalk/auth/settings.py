"""The configuration of the authentication service: a TOML file, described as data."""

from __future__ import annotations

from typing import Final

from monktalk.common.config import Kind, Option, Schema, Section
from monktalk.common.logging import LEVELS
from monktalk.common.scram import ITERATIONS, MAX_ITERATIONS

SERVICE: Final = Section(
    ("service",),
    "Where the service listens, and what the XMPP server has to show.",
    (
        Option(
            "address",
            Kind.STRING,
            "127.0.0.1",
            restart=True,
            doc="The address to listen on. It must be one of the loopback interface: calls carry passwords in clear.",
        ),
        Option("port", Kind.INTEGER, 3300, minimum=1, maximum=65535, restart=True, doc="The TCP port."),
        Option("username", Kind.STRING, "xmpp", minimum=1, doc="HTTP basic authentication: user."),
        Option("password", Kind.STRING, secret=True, minimum=8, doc="HTTP basic authentication: password."),
        Option(
            "threads",
            Kind.INTEGER,
            16,
            minimum=2,
            maximum=256,
            restart=True,
            doc="Calls answered at once. They share one process, and with it caches and back-off.",
        ),
        Option(
            "stop_time",
            Kind.DURATION,
            "10 s",
            minimum="1 s",
            maximum="5 min",
            restart=True,
            doc="How long calls under way may take to end when the service stops or reloads.",
        ),
    ),
)

DATABASE: Final = Section(
    ("database",),
    "Where the table web_users is.",
    (
        Option(
            "url",
            Kind.STRING,
            secret=True,
            doc="`sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST,HOST/NAME`, as of the XMPP server.",
        ),
        Option(
            "connections",
            Kind.INTEGER,
            8,
            minimum=1,
            maximum=256,
            doc="Connections kept open to PostgreSQL for reading.",
        ),
    ),
)

AUTHENTICATORS: Final = Section(
    ("authenticators",),
    "The domains: one Python file each, named as the domain, and what holds for them unless their file says else.",
    (
        Option("directory", Kind.PATH, "/etc/mongooseim/externals-auth", doc="Where the files are."),
        Option(
            "answer",
            Kind.CHOICE,
            "username",
            choices=("username", "true"),
            doc="What success says: the name of the user, or the word that stock MongooseIM wants.",
        ),
        Option(
            "upgrade",
            Kind.BOOLEAN,
            True,
            doc="Replace passwords in web_users by SCRAM keys when they are first used. It cannot be undone.",
        ),
        Option(
            "scram_iterations",
            Kind.INTEGER,
            ITERATIONS,
            minimum=4096,
            maximum=MAX_ITERATIONS,
            doc="PBKDF2 iterations of new SCRAM keys.",
        ),
        Option(
            "cache_entries",
            Kind.INTEGER,
            10_000,
            minimum=0,
            maximum=1_000_000,
            doc="Results of PBKDF2 that are remembered, under a digest of all that they depend on; 0 for none.",
        ),
        Option("cache_time", Kind.DURATION, "1 h", minimum="1 s", doc="How long one is remembered."),
        Option("load_time", Kind.DURATION, "10 s", minimum="100 ms", doc="How long loading one file may take."),
    ),
)

BACK_OFF: Final = Section(
    ("back_off",),
    "Wrong passwords. After some of them further ones are refused unchecked, for a time that doubles with each one.",
    (
        Option("enabled", Kind.BOOLEAN, True, doc="Whether wrong passwords are counted at all."),
        Option(
            "pair_failures",
            Kind.INTEGER,
            5,
            minimum=1,
            doc="Wrong passwords of one account from one client address that cost nothing.",
        ),
        Option(
            "address_failures",
            Kind.INTEGER,
            30,
            minimum=1,
            doc="Wrong passwords from one client address, of whatever accounts, that cost nothing.",
        ),
        Option(
            "account_failures",
            Kind.INTEGER,
            20,
            minimum=1,
            doc="Wrong passwords of one account, from wherever, that cost nothing.",
        ),
        Option("delay", Kind.DURATION, "1 s", minimum="1 ms", doc="The first wait."),
        Option(
            "delay_limit",
            Kind.DURATION,
            "5 min",
            minimum="1 ms",
            doc="The longest wait for an account from one client address.",
        ),
        Option(
            "address_delay_limit",
            Kind.DURATION,
            "15 s",
            minimum="1 ms",
            doc="The longest wait of a client address for accounts that did nothing wrong: many people may share it.",
        ),
        Option(
            "account_delay_limit",
            Kind.DURATION,
            "2 s",
            minimum="1 ms",
            doc="The longest wait for an account from addresses that did nothing wrong: short, or anybody could lock "
            "anybody out.",
        ),
        Option(
            "window", Kind.DURATION, "30 min", minimum="1 s", doc="Failures are forgotten after so long without any."
        ),
        Option("entries", Kind.INTEGER, 20_000, minimum=100, doc="Accounts, addresses and pairs remembered, of each."),
    ),
)

LOG: Final = Section(
    ("log",),
    "The log: never a password, no query strings.",
    (
        Option("level", Kind.CHOICE, "info", choices=tuple(LEVELS), doc="What is logged."),
        Option("file", Kind.PATH, None, doc="Log to this file, too, not to the standard error stream only."),
    ),
)


def schema() -> Schema:
    """Return the schema of the service's configuration file."""
    return Schema((SERVICE, DATABASE, AUTHENTICATORS, BACK_OFF, LOG))
