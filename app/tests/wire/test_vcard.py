"""vcard-temp (XEP-0054) and the photo hash in presence (XEP-0153)."""

from __future__ import annotations

import base64
import hashlib

import pytest

from tests.support.client import befriend
from tests.support.matching import assert_matches
from tests.support.stanzas import condition_of, payload_of

VCARD = "vcard-temp"
UPDATE = "vcard-temp:x:update"
CARD = (
    f"<vCard xmlns='{VCARD}'><FN>Juliet Capulet</FN><N><FAMILY>Capulet</FAMILY><GIVEN>Juliet</GIVEN></N>"
    "<NICKNAME>Jules &amp; co</NICKNAME><EMAIL><INTERNET/><USERID>juliet@example.org</USERID></EMAIL></vCard>"
)
PHOTO = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def with_photo(photo: bytes = PHOTO) -> str:
    """A vCard with a picture."""
    encoded = base64.b64encode(photo).decode()
    return f"<vCard xmlns='{VCARD}'><FN>J</FN><PHOTO><TYPE>image/png</TYPE><BINVAL>{encoded}</BINVAL></PHOTO></vCard>"


async def test_set_and_get(server, account):
    juliet = await server.login(account("juliet"))
    answer = await juliet.set(CARD)
    assert answer.get("type") == "result"
    assert len(answer) == 0
    for to in (None, juliet.bare):
        answer = await juliet.get(f"<vCard xmlns='{VCARD}'/>", to=to)
        assert_matches(payload_of(answer), CARD)


async def test_it_outlives_the_session(server, account):
    juliet = await server.login(account("juliet"))
    await juliet.set(CARD)
    await juliet.end()
    again = await server.login(juliet.account)
    assert_matches(payload_of(await again.get(f"<vCard xmlns='{VCARD}'/>")), CARD)


async def test_a_set_replaces_the_whole_card(server, account):
    juliet = await server.login(account("juliet"))
    await juliet.set(CARD)
    await juliet.set(f"<vCard xmlns='{VCARD}'><FN>J</FN></vCard>")
    answer = await juliet.get(f"<vCard xmlns='{VCARD}'/>")
    assert_matches(payload_of(answer), f"<vCard xmlns='{VCARD}'><FN>J</FN></vCard>")


async def test_no_card_yet(server, account):
    """XEP-0054, 3.1: item-not-found, or an empty card."""
    juliet = await server.login(account("juliet"))
    answer = await juliet.get(f"<vCard xmlns='{VCARD}'/>")
    if answer.get("type") == "result":
        assert_matches(payload_of(answer), f"<vCard xmlns='{VCARD}'/>")
    else:
        assert condition_of(answer) == "item-not-found"


async def test_the_card_of_somebody_else(server, account):
    """XEP-0054, 3.3: the server answers for the account, which needs not be online."""
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await juliet.set(CARD)
    card = await romeo.get(f"<vCard xmlns='{VCARD}'/>", to=juliet.bare)
    assert_matches(payload_of(card), CARD)
    assert card.get("from") == juliet.bare
    await juliet.end()
    assert_matches(payload_of(await romeo.get(f"<vCard xmlns='{VCARD}'/>", to=juliet.bare)), CARD)


async def test_the_card_of_somebody_in_another_host(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet", host="other.example"))
    await juliet.set(CARD)
    assert_matches(payload_of(await romeo.get(f"<vCard xmlns='{VCARD}'/>", to=juliet.bare)), CARD)


async def test_setting_the_card_of_somebody_else(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await juliet.set(CARD)
    answer = await romeo.set(f"<vCard xmlns='{VCARD}'><FN>forged</FN></vCard>", to=juliet.bare)
    assert condition_of(answer) in ("forbidden", "not-allowed", "service-unavailable")
    assert_matches(payload_of(await juliet.get(f"<vCard xmlns='{VCARD}'/>")), CARD)


async def test_no_card_and_no_account_look_alike(server, auth, account):
    romeo = await server.login(account("romeo"))
    answers = set()
    for jid in (account("juliet").jid, auth.absent().jid, (await server.online(account("nurse"))).bare):
        answer = await romeo.get(f"<vCard xmlns='{VCARD}'/>", to=jid)
        answers.add((answer.get("type"), condition_of(answer) if answer.get("type") == "error" else ""))
    assert len(answers) == 1


async def test_a_card_that_is_too_big(server_with, account):
    server = server_with({"modules": {"vcard": {"max_size": "8 KiB"}}})
    juliet = await server.login(account("juliet"))
    await juliet.set(CARD)
    answer = await juliet.set(f"<vCard xmlns='{VCARD}'><NOTE>{'x' * 9000}</NOTE></vCard>")
    assert condition_of(answer) in ("resource-constraint", "not-acceptable", "policy-violation")
    assert_matches(payload_of(await juliet.get(f"<vCard xmlns='{VCARD}'/>")), CARD)


# --------------------------------------------------------------------------------------------- photo in presence


async def photo_hash(presence) -> str | None:
    """The hash that a presence stanza tells; None when it says nothing about a photo."""
    update = presence.find(f"{{{UPDATE}}}x")
    photo = update.find(f"{{{UPDATE}}}photo") if update is not None else None
    return None if photo is None else photo.text or ""


async def test_the_server_adds_the_hash_of_the_photo(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    await romeo.available()
    await juliet.set(with_photo())
    await juliet.send("<presence/>")
    assert await photo_hash(await romeo.next()) == hashlib.sha1(PHOTO, usedforsecurity=False).hexdigest()


async def test_a_new_photo_is_told_to_contacts(server, account):
    """The server keeps the hash right for clients that don't: presence is sent again when the photo changes."""
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    await romeo.available()
    await juliet.available("<show>away</show>")
    await romeo.drained()
    await juliet.set(with_photo(PHOTO + b"x"))
    told = await romeo.next()
    assert told.get("from") == juliet.full
    assert told.findtext("{jabber:client}show") == "away"
    assert await photo_hash(told) == hashlib.sha1(PHOTO + b"x", usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("photo", ["", "<photo>0000000000000000000000000000000000000000</photo>"])
async def test_a_missing_or_wrong_hash_is_corrected(server, account, photo):
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    await romeo.available()
    await juliet.set(with_photo())
    await juliet.send(f"<presence><x xmlns='{UPDATE}'>{photo}</x></presence>")
    received = await romeo.next()
    assert len(received.findall(f"{{{UPDATE}}}x")) == 1
    assert await photo_hash(received) == hashlib.sha1(PHOTO, usedforsecurity=False).hexdigest()


async def test_a_client_may_say_that_there_is_no_photo(server, account):
    """XEP-0398, 4: an empty ``<photo/>`` is a client's decision; the server leaves it alone."""
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    await romeo.available()
    await juliet.set(with_photo())
    await juliet.send(f"<presence><x xmlns='{UPDATE}'><photo/></x></presence>")
    assert await photo_hash(await romeo.next()) == ""


async def test_no_hash_in_unavailable_presence(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    await romeo.available()
    await juliet.set(with_photo())
    await juliet.available()
    await romeo.drained()
    await juliet.send("<presence type='unavailable'/>")
    assert (await romeo.next()).find(f"{{{UPDATE}}}x") is None
