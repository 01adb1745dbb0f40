"""What can go wrong between the server and its authentication service."""

from __future__ import annotations


class AuthUnavailable(Exception):
    """Nobody knows: the service cannot be reached, is too slow, or answers what it must not.

    Callers answer the client `temporary-auth-failure` (RFC 6120 section 6.5.11) and keep the stream.
    """


class AccountExists(Exception):
    """An account of that name is there already."""


class AccountMissing(Exception):
    """There is no account of that name."""


class NotAllowed(Exception):
    """The service refuses to do it: registration is closed, say, or the password is not accepted."""
