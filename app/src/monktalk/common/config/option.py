"""An option: its kind, default and bounds, and how a TOML value becomes its value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from monktalk.common.jid import JID, InvalidJID, prepare_domain

if TYPE_CHECKING:
    from collections.abc import Callable


class Kind(Enum):
    """What values an option takes; the text says so in the reference."""

    STRING = "text"
    INTEGER = "whole number"
    NUMBER = "number"
    BOOLEAN = "true or false"
    SIZE = "size"
    DURATION = "duration"
    PATH = "path"
    URL = "URL"
    STRINGS = "list of texts"
    JID = "XMPP address"
    JIDS = "list of XMPP addresses"
    DOMAINS = "list of domains"
    NETWORKS = "list of networks"
    CHOICE = "one of"


class Required(Enum):
    """The type of `REQUIRED`."""

    REQUIRED = "required"


REQUIRED: Final = Required.REQUIRED
"""The default of an option that has none: it must be set."""


@dataclass(frozen=True)
class Option:
    """One key of a section.

    Attributes:
        name: the key, lower case with underscores.
        kind: what values it takes.
        default: the value when the key is missing, written as in TOML; None is "not set".
        doc: what it does, a sentence or more.
        minimum, maximum: bounds, written like the value. They hold for the number, or for the length of a
            text or a list.
        choices: the values of a CHOICE, the schemes of a URL, the items that a list may have.
        secret: its value is never shown; the key `<name>_file` may name a file that holds it instead.
        restart: a running program cannot change it.
    """

    name: str
    kind: Kind
    default: Any = REQUIRED
    doc: str = ""
    minimum: float | str | None = None
    maximum: float | str | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False
    restart: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"Option {self.name!r}: a name is lower case letters, digits and underscores.")
        if self.kind is Kind.CHOICE and not self.choices:
            raise ValueError(f"Option {self.name!r} is a choice of nothing.")
        if self.secret and self.kind not in (Kind.STRING, Kind.URL):
            raise ValueError(f"Option {self.name!r}: only texts and URLs can be secret.")
        self.initial()

    def initial(self) -> Any:
        """Return the converted default, `REQUIRED` where there is none.

        Raises:
            ValueError: the default is not a value of the option.
        """
        if self.default is REQUIRED or self.default is None:
            return self.default
        try:
            return self.convert(list(self.default) if isinstance(self.default, tuple) else self.default)
        except ValueError as error:
            raise ValueError(f"The default of the option {self.name!r} {error}.") from error

    def convert(self, raw: object) -> Any:
        """Return the value that `raw`, as TOML gives it, stands for.

        Raises:
            ValueError: it is not one; the message continues a sentence that begins with the option.
        """
        value = _CONVERT[self.kind](raw)
        if self.kind is Kind.URL:
            _check_scheme(value, self.choices)
        elif self.choices:
            _check_choices(value, self.choices)
        self._check_bounds(value)
        return value

    def bound(self, written: float | str) -> float:
        """Return a bound as a number: of bytes for a size, of seconds for a duration."""
        if self.kind in (Kind.SIZE, Kind.DURATION):
            return float(_CONVERT[self.kind](written))
        return float(written)

    def written_bound(self, bound: float | str) -> str:
        """Return a bound as people read it, with its unit."""
        unit = _UNITS.get(self.kind)
        if unit is None or isinstance(bound, str):
            return str(bound)
        if self.kind is Kind.SIZE and bound and bound % 1024 == 0:
            bound, unit = bound // 1024, "KiB"
        return f"{bound:g} {unit.removesuffix('s') if bound == 1 and len(unit) > 3 else unit}"

    def _check_bounds(self, value: Any) -> None:
        if self.minimum is None and self.maximum is None:
            return
        measure = len(value) if isinstance(value, str | tuple) else value
        if self.minimum is not None and measure < self.bound(self.minimum):
            raise ValueError(f"must be at least {self.written_bound(self.minimum)}")
        if self.maximum is not None and measure > self.bound(self.maximum):
            raise ValueError(f"must be at most {self.written_bound(self.maximum)}")


# What bounds without a unit count.
_UNITS: Final = {
    Kind.STRING: "characters",
    Kind.STRINGS: "items",
    Kind.JIDS: "items",
    Kind.DOMAINS: "items",
    Kind.NETWORKS: "items",
    Kind.SIZE: "bytes",
    Kind.DURATION: "s",
}

_SIZE_UNITS: Final = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
_DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", re.ASCII).fullmatch
_DURATION: Final = re.compile(r"\d+(?:\.\d+)? ?(?:ms|s|min|h|d)(?: \d+(?:\.\d+)? ?(?:ms|s|min|h|d))*", re.ASCII)
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|min|h|d)", re.ASCII)


def _string(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError("must be a text in quotes")
    return raw


def _integer(raw: object) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise ValueError("must be a whole number")
    return raw


def _number(raw: object) -> float:
    if not isinstance(raw, int | float) or isinstance(raw, bool) or not math.isfinite(raw):
        raise ValueError("must be a number")
    return float(raw)


def _boolean(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise ValueError("must be true or false")
    return raw


def _size(raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return raw
    match = _SIZE(raw) if isinstance(raw, str) else None
    unit = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError('must be a number of bytes or a text like "256 KiB" (B, kB, MB, GB, KiB, MiB, GiB)')
    size = float(match[1]) * unit
    if size != int(size):
        raise ValueError("must be a whole number of bytes")
    return int(size)


def _duration(raw: object) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool) and math.isfinite(raw) and raw >= 0:
        return float(raw)
    if not isinstance(raw, str) or not _DURATION.fullmatch(raw):
        raise ValueError('must be a number of seconds or a text like "30 s" or "1 h 30 min" (ms, s, min, h, d)')
    return sum(float(amount) * _DURATION_UNITS[unit] for amount, unit in _DURATION_PART.findall(raw))


def _path(raw: object) -> Path:
    text = _string(raw)
    if not text or "\0" in text:
        raise ValueError("must be a path")
    return Path(text)


def _url(raw: object) -> str:
    text = _string(raw)
    try:
        parts = urlsplit(text)
        usable = bool(parts.scheme) and "://" in text and text.isprintable() and " " not in text
        usable = usable and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or (parts.scheme in ("http", "https") and not parts.hostname):
        raise ValueError("must be a URL like http://127.0.0.1:3300/")
    return text


def _check_scheme(url: str, schemes: tuple[str, ...]) -> None:
    if schemes and urlsplit(url).scheme not in schemes:
        raise ValueError(f"must be a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")


def _check_choices(value: str | tuple[str, ...], choices: tuple[str, ...]) -> None:
    for item in value if isinstance(value, tuple) else (value,):
        if item not in choices:
            listed = ", ".join(f'"{choice}"' for choice in choices)
            raise ValueError(f'must be {"made of" if isinstance(value, tuple) else "one of"} {listed}, not "{item}"')


def _strings(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(item, str) for item in raw):
        raise ValueError('must be a list of texts, like ["one", "two"]')
    return tuple(raw)


def _jid(raw: object) -> JID:
    try:
        return JID.parse(_string(raw))
    except InvalidJID as error:
        raise ValueError(f"must be an XMPP address: {str(error).rstrip('.')}") from error


def _jids(raw: object) -> tuple[JID, ...]:
    return tuple(_jid(item) for item in _strings(raw))


def _domains(raw: object) -> tuple[str, ...]:
    domains: list[str] = []
    for item in _strings(raw):
        try:
            domain = prepare_domain(item)
        except InvalidJID as error:
            raise ValueError(f"must be a list of domains: {str(error).rstrip('.')}") from error
        if domain in domains:
            raise ValueError(f'names "{domain}" twice')
        domains.append(domain)
    return tuple(domains)


def _networks(raw: object) -> tuple[IPv4Network | IPv6Network, ...]:
    networks: list[IPv4Network | IPv6Network] = []
    for item in _strings(raw):
        try:
            networks.append(ip_network(item))
        except ValueError as error:
            raise ValueError(f'must be a list of networks like "192.0.2.0/24" or "2001:db8::/32": {error}') from None
    return tuple(networks)


_CONVERT: Final[dict[Kind, Callable[[object], Any]]] = {
    Kind.STRING: _string,
    Kind.INTEGER: _integer,
    Kind.NUMBER: _number,
    Kind.BOOLEAN: _boolean,
    Kind.SIZE: _size,
    Kind.DURATION: _duration,
    Kind.PATH: _path,
    Kind.URL: _url,
    Kind.STRINGS: _strings,
    Kind.JID: _jid,
    Kind.JIDS: _jids,
    Kind.DOMAINS: _domains,
    Kind.NETWORKS: _networks,
    Kind.CHOICE: _string,
}
