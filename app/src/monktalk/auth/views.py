"""The HTTP side of the contract: one view a call, GET for questions and POST for changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from flask import Blueprint, Response, current_app, request

from monktalk.auth.errors import InvalidCall
from monktalk.auth.service import AuthService, Call

if TYPE_CHECKING:
    from collections.abc import Callable

EXTENSION: Final = "monktalk-auth"
"""The key in `app.extensions` under which the service is found."""

PREFIX: Final = "/authorize"
ADDRESS_HEADER: Final = "X-Client-Address"
PARAMETERS: Final = ("user", "server", "pass")
REFUSAL: Final = "false"

_MAX_ADDRESS: Final = 64

blueprint = Blueprint("authorize", __name__, url_prefix=PREFIX)


@blueprint.get("/user_exists")
def user_exists() -> Response:
    """Is there such an account? 200 with the success body or `false`."""
    return _verdict(_service().user_exists(_call(_query())))


@blueprint.get("/check_password")
def check_password() -> Response:
    """Is this the account's password? 200 with the success body or `false`; 403 while nothing is checked."""
    return _verdict(_service().check_password(_call(_query())))


@blueprint.get("/get_password")
def get_password() -> Response:
    """What is the account's password, or what are its SCRAM keys? 200 with them, or 404."""
    return text(_service().get_password(_call(_query())))


@blueprint.get("/get_certs")
def get_certs() -> Response:
    """Which certificates may the account log in with? 200 with PEM, or 404."""
    return text(_service().get_certs(_call(_query())))


@blueprint.post("/register")
def register() -> Response:
    """Make an account: 201, or 409 when it exists, 403 when it cannot be made, 400 for an unusable password."""
    return _change(_service().register, status=201)


@blueprint.post("/set_password")
def set_password() -> Response:
    """Change a password: 200, or 404 without an account, 403 when not allowed, 400 for an unusable password."""
    return _change(_service().set_password)


@blueprint.post("/remove_user")
def remove_user() -> Response:
    """Delete an account: 200, or 404 without an account, 403 when not allowed."""
    return _change(_service().remove_user)


@blueprint.post("/remove_user_validate")
def remove_user_validate() -> Response:
    """Delete an account if the password is right: 200, or 403 when it is wrong, 404 without an account."""
    return _change(_service().remove_user_validate)


def text(body: str, status: int = 200) -> Response:
    """Return an answer of plain text; Flask adds Content-Length."""
    return Response(body, status, {"Cache-Control": "no-store"}, content_type="text/plain; charset=utf-8")


def parse_form(data: bytes) -> dict[str, str]:
    """Return the parameters in a query or a body: percent-encoded, or in raw UTF-8 as Erlang clients send it.

    Raises:
        InvalidCall: it is not UTF-8, or a parameter is there twice.
    """
    try:
        pairs = parse_qsl(
            data.decode(), keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=len(PARAMETERS) * 2
        )
    except UnicodeDecodeError:
        raise InvalidCall("The parameters are not UTF-8.") from None
    except ValueError:
        raise InvalidCall("There are too many parameters.") from None
    values = dict(pairs)
    if len(values) != len(pairs):
        raise InvalidCall("A parameter is there twice.")
    return values


def _service() -> AuthService:
    service = current_app.extensions[EXTENSION]
    assert isinstance(service, AuthService)
    return service


def _query() -> bytes:
    # WSGI gives the bytes of the query as if they were Latin-1 (PEP 3333).
    query: str = request.environ.get("QUERY_STRING", "")
    return query.encode("latin-1")


def _call(data: bytes) -> Call:
    values = parse_form(data)
    missing = [name for name in PARAMETERS if name not in values]
    if missing:
        raise InvalidCall(f"The parameters user, server and pass must all be there; missing: {', '.join(missing)}.")
    address = request.headers.get(ADDRESS_HEADER, "").strip()[:_MAX_ADDRESS]
    return Call(values["user"], values["server"], values["pass"], address)


def _verdict(success: str | None) -> Response:
    return text(REFUSAL if success is None else success)


def _change(change: Callable[[Call], str], status: int = 200) -> Response:
    # The raw body, because stock MongooseIM sends no Content-Type.
    return text(change(_call(request.get_data(cache=False))), status)
