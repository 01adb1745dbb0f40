"""Authenticators: who a domain's accounts are, and how their passwords are checked.

Each domain has a file named as the domain plus `.py`, which assigns one to `authenticator`:

    from monktalk.auth.authenticators import Buddies, HttpBackend, WebUsers

    authenticator = Buddies(HttpBackend("https://accounts.example.org/"), buddies=["echo", "help"])
"""

from __future__ import annotations

from monktalk.auth.authenticators.base import Authenticator, Resources
from monktalk.auth.authenticators.buddies import Buddies
from monktalk.auth.authenticators.http_backend import HttpBackend
from monktalk.auth.authenticators.web_users import WebUsers
from monktalk.auth.errors import (
    AccountExists,
    AccountMissing,
    CallError,
    InvalidCall,
    NotAllowed,
    Unavailable,
    WrongPassword,
)

__all__ = [
    "AccountExists",
    "AccountMissing",
    "Authenticator",
    "Buddies",
    "CallError",
    "HttpBackend",
    "InvalidCall",
    "NotAllowed",
    "Resources",
    "Unavailable",
    "WebUsers",
    "WrongPassword",
]
