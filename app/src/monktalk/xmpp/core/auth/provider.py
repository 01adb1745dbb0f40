"""Who may log in at one host: the authentication service, asked as seldom as possible.

The service keeps SCRAM keys (format `scram`) or passwords (format `plain`). With the first, it is asked for the
keys and everything is checked here; with the second, it checks PLAIN itself and the keys for SCRAM are computed
from the password that it gives.

What is done for an account that exists is done for a name that does not, too: neither answers nor their timing
say which names are accounts. Credentials and verdicts of both are remembered for the same time; but when a login
fails against credentials that are a moment old, the next one sees fresh ones, so that a new account and a new
password work at once.
"""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING, Final, TypeVar, cast

from monktalk.common import scram
from monktalk.common.clock import SystemClock
from monktalk.common.logging import get_logger
from monktalk.common.metrics import Registry
from monktalk.xmpp.core.auth.breaker import CLOSED, BreakerOpen, CircuitBreaker
from monktalk.xmpp.core.auth.cache import MISSING, AnswerCache, CacheClosed
from monktalk.xmpp.core.auth.client import UNUSABLE_NAMES, Endpoint
from monktalk.xmpp.core.auth.errors import AuthUnavailable, NotAllowed
from monktalk.xmpp.protocol.sasl import fake_keys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from concurrent.futures import Executor
    from typing import Any

    from monktalk.common.clock import Clock
    from monktalk.common.config import Settings
    from monktalk.common.metrics import Metric
    from monktalk.common.scram import ScramKeys
    from monktalk.xmpp.core.auth.client import AuthClients

T = TypeVar("T")

Credentials = dict[str, "ScramKeys"]
"""The keys of an account by the name of their hash."""

FRESH_SECONDS: Final = 2.0
"""Credentials older than this are fetched again before a login is refused because of them."""

_PREFERRED: Final = ("sha256", "sha1", "sha512")
"""Which keys check a password: they are all as good, and SHA-512 costs twice as much here."""

log = get_logger(__name__)
