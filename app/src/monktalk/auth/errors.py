"""What calls end with when they do not succeed: one exception type, with the HTTP status it is answered with."""

from __future__ import annotations


class CallError(Exception):
    """A call that is not answered with success. `text` is the body, for people; it never holds a secret.

    The statuses are those that MongooseIM's `http` back end knows (200 201 204 400 401 403 404 409). 503 is
    meant to be none of them: the XMPP server then tells its client temporary-auth-failure.
    """

    status = 500
    text = "The call has failed."

    def __init__(self, text: str = "") -> None:
        super().__init__(text or self.text)
        self.text = text or self.text


class InvalidCall(CallError):
    """The call is malformed, or its values cannot be used."""

    status = 400
    text = "The call is malformed."


class Unauthorized(CallError):
    """The caller has not shown the service's own credentials."""

    status = 401
    text = "This service wants HTTP basic authentication."


class NotAllowed(CallError):
    """The domain does not allow it."""

    status = 403
    text = "This is not allowed."


class WrongPassword(CallError):
    """Something that needs the account's password was asked for with another one."""

    status = 403
    text = "The password is wrong."


class Throttled(CallError):
    """Too many passwords were wrong; none is checked for `wait` seconds.

    403, because it refuses one login; 429 or 503 would look like an outage of the service.
    """

    status = 403
    text = "Too many passwords were wrong. Try again later."

    def __init__(self, wait: float) -> None:
        super().__init__()
        self.wait = wait


class AccountMissing(CallError):
    """There is no such account, or it has no such thing."""

    status = 404
    text = "There is no such account."


class AccountExists(CallError):
    """The account is there already."""

    status = 409
    text = "The account exists already."


class Unavailable(CallError):
    """Nobody can say now: the database or a back end does not answer, or the domain's authenticator is broken."""

    status = 503
    text = "The domain's accounts cannot be reached now."
