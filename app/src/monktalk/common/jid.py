"""Addresses of XMPP entities (RFC 7622): parsing, preparation and a cache, since every stanza carries some.

`JID.parse` answers a text that it has seen before with one dict lookup. Plain ASCII, nearly all there is, is
prepared by one regular expression; only the rest reaches the PRECIS and IDNA tables.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from typing import TYPE_CHECKING, Final, NoReturn

import idna
from precis_i18n import get_profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from precis_i18n.profile import Profile

MAX_PART_BYTES: Final = 1023
"""Longest localpart, domainpart or resourcepart in UTF-8, after preparation (RFC 7622 section 3.1)."""

# No text with more characters shrinks to MAX_PART_BYTES by normalization: what is longer is refused before
# any work is spent on it.
_MAX_RAW_CHARS: Final = 2 * MAX_PART_BYTES

# RFC 7622 section 3.3.1: these eight are excluded from localparts beyond what the PRECIS profile excludes.
_LOCAL_EXCLUDED: Final = "\"&'/:<>@"

_MAX_LABEL: Final = 63
_RIGHT_TO_LEFT: Final = ("R", "AL", "AN")
_SHOWN_CHARS: Final = 60

_LOCAL = r"""[!#$%()*+,\-.0-9;=?A-Z\[\\\]^_`a-z{|}~]{1,1023}"""
# A letter-digit-hyphen label. Hyphens in third and fourth place mark an A-label, which takes the long way.
_LABEL = r"(?!-|..--)[A-Za-z0-9-]{1,63}(?<!-)"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_RESOURCE = r"[ -~]{1,1023}"

_match_jid: Final = re.compile(rf"(?:({_LOCAL})@)?({_DOMAIN})\.?(?:/({_RESOURCE}))?").fullmatch
_match_local: Final = re.compile(_LOCAL).fullmatch
_match_domain: Final = re.compile(rf"({_DOMAIN})\.?").fullmatch
_match_resource: Final = re.compile(_RESOURCE).fullmatch

_username: Final = get_profile("UsernameCaseMapped")
_opaque: Final = get_profile("OpaqueString")

# Katakana middle dot and the two rows of Arabic digits: their context rules look at the whole text, once
# for each occurrence, and the answer is the same for all of them (RFC 5892 appendix A.7 to A.9).
_WHOLE_TEXT_RULES: Final = (
    "\u30fb\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669"
    "\u06f0\u06f1\u06f2\u06f3\u06f4\u06f5\u06f6\u06f7\u06f8\u06f9"
)

_CACHE_ENTRIES: Final = 16_384
# Longer texts are parsed each time: a stranger must not be able to fill the cache with kilobytes an entry.
_CACHE_CHARS: Final = 255


class InvalidJID(ValueError):
    """A text is not an XMPP address; the message is a sentence that says why."""


class JID:
    """An XMPP address, prepared and immutable; equal and hashed by its full form.

    `local` and `resource` are "" where the address has none. `bare` is "local@domain" or "domain", `full` is
    that with "/resource" where there is one; both are made once, since the router reads them all the time.
    """

    __slots__ = ("bare", "domain", "full", "local", "resource")

    local: str
    domain: str
    resource: str
    bare: str
    full: str

    @staticmethod
    def parse(text: str) -> JID:
        """Return the address that `text` spells.

        Raises:
            InvalidJID: `text` is not an address (RFC 7622 section 3).
        """
        known = _cache.get(text)
        if known is not None:
            return known
        return _remember(text, _parse(text))

    @staticmethod
    def of(local: str, domain: str, resource: str = "") -> JID:
        """Return the address made of these parts, prepared like those of a parsed one; "" leaves a part out.

        Raises:
            InvalidJID: a part is not allowed, or `domain` is empty.
        """
        return _build(
            prepare_local(local) if local else "",
            prepare_domain(domain),
            prepare_resource(resource) if resource else "",
        )

    def with_resource(self, resource: str) -> JID:
        """Return the full address of `resource` at the same account; "" gives the bare address.

        Raises:
            InvalidJID: the resource is not allowed (RFC 7622 section 3.4).
        """
        if not resource:
            return self.to_bare()
        return _build(self.local, self.domain, prepare_resource(resource))

    def to_bare(self) -> JID:
        """Return the address without its resource: itself where it has none."""
        if not self.resource:
            return self
        known = _cache.get(self.bare)
        if known is not None:
            return known
        return _remember(self.bare, _build(self.local, self.domain, ""))

    def __str__(self) -> str:
        return self.full

    def __repr__(self) -> str:
        return f"JID({self.full!r})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, JID):
            return self.full == other.full
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.full)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a JID does not change: make another one instead of setting {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a JID does not change: {name} cannot be deleted")

    def __reduce__(self) -> tuple[Callable[[str, str, str], JID], tuple[str, str, str]]:
        return _build, (self.local, self.domain, self.resource)


# The slots' own descriptors write past __setattr__, twice as fast as object.__setattr__.
_set_local: Final = JID.__dict__["local"].__set__
_set_domain: Final = JID.__dict__["domain"].__set__
_set_resource: Final = JID.__dict__["resource"].__set__
_set_bare: Final = JID.__dict__["bare"].__set__
_set_full: Final = JID.__dict__["full"].__set__

_cache: Final[dict[str, JID]] = {}


def prepare_local(text: str) -> str:
    """Return `text` as a localpart: UsernameCaseMapped of RFC 8265, less what RFC 7622 section 3.3.1 bans.

    Raises:
        InvalidJID: empty, too long, or a character that is not allowed.
    """
    if _match_local(text):
        return text.lower()
    prepared = _enforce(_username, "localpart", text)
    for character in _LOCAL_EXCLUDED:
        if character in prepared:
            raise InvalidJID(f"The localpart {_shown(text)} contains {character}, which is not allowed there.")
    return prepared


def prepare_resource(text: str) -> str:
    """Return `text` as a resourcepart: OpaqueString of RFC 8265 (RFC 7622 section 3.4).

    Raises:
        InvalidJID: empty, too long, or a character that is not allowed.
    """
    if _match_resource(text):
        return text
    return _enforce(_opaque, "resourcepart", text)


def prepare_domain(text: str) -> str:
    """Return `text` as a domainpart: lower case, U-labels, no trailing dot (RFC 7622 section 3.2).

    An IPv6 address stands in brackets and is given its canonical form.

    Raises:
        InvalidJID: empty, too long, or not a domain name of IDNA2008 and not an address.
    """
    if len(text) <= MAX_PART_BYTES:
        match = _match_domain(text)
        if match:
            return match[1].lower()
    _check_raw_length("domainpart", text)
    if text.startswith("["):
        return _prepare_ipv6(text)
    mapped = unicodedata.normalize("NFC", _username.width_mapping_rule(text).lower())
    if "xn--" not in mapped:  # nothing below makes it shorter
        _check_length("domainpart", text, mapped)
    labels = [_prepare_label(label, text) for label in mapped.removesuffix(".").split(".")]
    _check_direction(labels, text)
    domain = ".".join(labels)
    _check_length("domainpart", text, domain)
    return domain


def _parse(text: str) -> JID:
    match = _match_jid(text)
    if match:
        local, domain, resource = match.groups()
        if len(domain) <= MAX_PART_BYTES:
            return _build(local.lower() if local else "", domain.lower(), resource or "")
    # RFC 7622 section 3.2: the first slash begins the resource; before it, the first @ ends the localpart.
    address, slash, resource = text.partition("/")
    local, at, domain = address.partition("@")
    if not at:
        local, domain = "", address
    return _build(
        prepare_local(local) if at else "",
        prepare_domain(domain),
        prepare_resource(resource) if slash else "",
    )


def _build(local: str, domain: str, resource: str) -> JID:
    """Return the address of parts that are prepared already."""
    jid = JID.__new__(JID)
    bare = f"{local}@{domain}" if local else domain
    _set_local(jid, local)
    _set_domain(jid, domain)
    _set_resource(jid, resource)
    _set_bare(jid, bare)
    _set_full(jid, f"{bare}/{resource}" if resource else bare)
    return jid


def _remember(text: str, jid: JID) -> JID:
    if len(text) <= _CACHE_CHARS:
        if len(_cache) >= _CACHE_ENTRIES:
            _cache.clear()
        _cache[text] = jid
    return jid


def _enforce(profile: Profile, part: str, text: str) -> str:
    """Apply a PRECIS profile (RFC 8264 section 7): its mappings until they are stable, then its class."""
    _check_raw_length(part, text)
    try:
        mapped = profile.apply_five_rules(text)
        for _ in range(3):
            again = profile.apply_five_rules(mapped)
            if again == mapped:
                break
            mapped = again
        else:
            raise InvalidJID(f"The {part} {_shown(text)} has no stable form after normalization.")
        _check_length(part, text, mapped)
        profile.base.enforce(_without_repeats(mapped))
    except UnicodeEncodeError as error:
        raise InvalidJID(f"The {part} {_shown(text)} {_precis_reason(error)}.") from error
    return mapped


def _without_repeats(text: str) -> str:
    """Return `text` for checking, with one of each character whose context rule reads the whole text.

    A kilobyte of them would cost quadratic time. The letter in their place is neutral for every other rule.
    """
    for character in _WHOLE_TEXT_RULES:
        head, found, tail = text.partition(character)
        if character in tail:
            text = head + found + tail.replace(character, "a")
    return text


def _precis_reason(error: UnicodeEncodeError) -> str:
    if error.reason.endswith("/bidi_rule"):
        return "mixes writing directions in a way that is not allowed (RFC 5893)"
    return f"contains U+{ord(error.object[error.start]):04X}, which is not allowed there"


def _prepare_label(label: str, domain: str) -> str:
    """Return one mapped label of `domain` as a U-label, or as it is when it is plain ASCII."""
    if not label:
        raise InvalidJID(f"The domainpart {_shown(domain)} has an empty label.")
    # An A-label has at least one byte for each character of its U-label, so nothing valid is refused here.
    if len(label) > _MAX_LABEL:
        raise InvalidJID(f"The domainpart {_shown(domain)} has a label longer than {_MAX_LABEL} bytes.")
    try:
        if label.isascii():
            return idna.ulabel(label)
        idna.alabel(label)
    except idna.IDNAError as error:
        raise InvalidJID(f"The domainpart {_shown(domain)} is not a domain name: {error}.") from error
    return label


def _check_direction(labels: list[str], domain: str) -> None:
    """Hold the Bidi rule over all labels when one of them is written right to left (RFC 5893 section 2)."""
    if not any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for label in labels for character in label):
        return
    try:
        for label in labels:
            idna.check_bidi(label, check_ltr=True)
    except idna.IDNAError as error:
        raise InvalidJID(f"The domainpart {_shown(domain)} is not a domain name: {error}.") from error


def _prepare_ipv6(text: str) -> str:
    # A zone ("%eth0") means something on one machine only and is no part of an address (RFC 7622).
    if text.endswith("]") and "%" not in text:
        try:
            return f"[{ipaddress.IPv6Address(text[1:-1])}]"
        except ipaddress.AddressValueError:
            pass
    raise InvalidJID(f"The domainpart {_shown(text)} is not an IPv6 address in brackets.")


def _check_raw_length(part: str, text: str) -> None:
    if not text:
        raise InvalidJID(f"The {part} is empty.")
    if len(text) > _MAX_RAW_CHARS:
        raise InvalidJID(f"The {part} {_shown(text)} is longer than {MAX_PART_BYTES} bytes.")


def _check_length(part: str, text: str, prepared: str) -> None:
    if len(prepared.encode("utf-8", "surrogatepass")) > MAX_PART_BYTES:
        raise InvalidJID(f"The {part} {_shown(text)} is longer than {MAX_PART_BYTES} bytes.")


def _shown(text: str) -> str:
    """Return `text` for an error message: quoted, escaped and of bounded length."""
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")
