"""Adding a host to the configuration file and taking one out, with every other byte of the file left as it is.

TOML libraries of the standard library read only. So the array ``hosts`` is edited in the text, and the result is parsed: what
it means must be the old document with the other list of hosts, or the edit is refused.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any, Final

from monktalk.common.config.locate import locate
from monktalk.common.jid import InvalidJID, prepare_domain

_KEY: Final = ("general", "hosts")
_START: Final = re.compile(r"""["']?hosts["']?[ \t]*=[ \t]*\[""")
_TOKEN: Final = re.compile(
    r"""(?P<text>\"{3}(?:[^\\]|\\.)*?\"{3}|'{3}.*?'{3}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
    r"|(?P<comment>\#[^\n]*)|(?P<comma>,)|(?P<end>\])|(?P<space>\s+)",
    re.DOTALL,
)


class EditError(Exception):
    """The file can't be edited; the message says why, and what to do instead."""


def add(text: str, domain: str) -> str:
    """The text with ``domain``, which is prepared, as the last of its hosts. Raises :class:`EditError`."""
    array = _find(text)
    if domain in array.hosts:
        raise EditError(f"{domain} is one of the hosts already.")
    return _checked(text, _append(text, array, f'"{domain}"'), [*_hosts(text), domain])


def remove(text: str, domain: str) -> str:
    """The text without ``domain`` among its hosts. Raises :class:`EditError`."""
    array = _find(text)
    if domain not in array.hosts:
        raise EditError(f"{domain} is not one of the hosts.")
    if len(array.elements) == 1:
        raise EditError(f"{domain} is the only host: a server needs one.")
    index = array.hosts.index(domain)
    start, end = _without(text, array, index)
    hosts = _hosts(text)
    return _checked(text, text[:start] + text[end:], hosts[:index] + hosts[index + 1 :])


@dataclass(frozen=True)
class _Array:
    """The array in the text.

    ``start`` is behind its bracket and ``stop`` the closing one; ``elements`` and ``commas`` are the places of what stands
    between them; ``hosts`` are its values, prepared.
    """

    start: int
    stop: int
    elements: list[tuple[int, int]]
    commas: list[int]
    hosts: list[str]


def _hosts(text: str) -> list[Any]:
    hosts = tomllib.loads(text).get("general", {}).get("hosts")
    if not isinstance(hosts, list):
        raise EditError("The file has no list of hosts in [general].")
    return hosts


def _find(text: str) -> _Array:
    hosts = _hosts(text)
    line = locate(text)[_KEY]
    offset = sum(len(part) for part in text.splitlines(keepends=True)[: line - 1])
    match = _START.search(text, offset)
    if match is None:
        raise _by_hand()
    elements: list[tuple[int, int]] = []
    commas: list[int] = []
    at = match.end()
    while (token := _TOKEN.match(text, at)) is not None and token.lastgroup != "end":
        if token.lastgroup == "text":
            elements.append(token.span())
        elif token.lastgroup == "comma":
            commas.append(token.start())
        at = token.end()
    if token is None or len(elements) != len(hosts):
        raise _by_hand()
    return _Array(match.end(), at, elements, commas, [_prepared(host) for host in hosts])


def _prepared(host: object) -> str:
    try:
        return prepare_domain(str(host))
    except InvalidJID:
        return str(host)


def _append(text: str, array: _Array, quoted: str) -> str:
    """On a line of its own where the last element has one, behind its comment; else behind the last element."""
    if not array.elements:
        return text[: array.start] + quoted + text[array.start :]
    begin, end = array.elements[-1]
    line = text.rfind("\n", 0, begin) + 1
    if line <= array.start:
        return text[:end] + f", {quoted}" + text[end:]
    indent = text[line:begin] if not text[line:begin].strip() else "    "
    trailing = bool(array.commas) and array.commas[-1] >= end
    rest = array.commas[-1] + 1 if trailing else end
    line_end = "\r\n" if "\r\n" in text else "\n"
    newline = text.find(line_end, rest)
    # What follows on the line is a comment on the last element, unless the array ends there.
    place = newline if 0 <= newline < array.stop else rest
    own = f"{line_end}{indent}{quoted}"
    if trailing:
        return text[:place] + own + "," + text[place:]
    return text[:end] + "," + text[end:place] + own + text[place:]


def _without(text: str, array: _Array, index: int) -> tuple[int, int]:
    """What to cut out: the whole line of an element that has one to itself, else the element with one comma."""
    begin, end = array.elements[index]
    after = next((comma for comma in array.commas if comma >= end), None)
    line, newline = text.rfind("\n", 0, begin) + 1, text.find("\n", end)
    stop = end if after is None or after > newline else after + 1
    alone = line > array.start and newline < array.stop and not text[line:begin].strip()
    if alone and not text[stop:newline].partition("#")[0].strip():
        return line, newline + 1
    if index + 1 < len(array.elements):
        return begin, array.elements[index + 1][0]
    return array.elements[index - 1][1], end


def _checked(before: str, after: str, hosts: list[Any]) -> str:
    """``after``, if it means what it should."""
    wanted = tomllib.loads(before)
    wanted["general"]["hosts"] = hosts
    try:
        found = tomllib.loads(after)
    except tomllib.TOMLDecodeError:
        found = {}
    if found != wanted:
        raise _by_hand()
    return after


def _by_hand() -> EditError:
    return EditError("The list of hosts is written in a way that is not edited here: change it by hand, then reload.")
