"""Roster management (RFC 6121 section 2)."""

from __future__ import annotations

import pytest

from tests.support.client import befriend
from tests.support.matching import show
from tests.support.roster import (
    ROSTER,
    Item,
    item,
    items_of,
    receives_push,
    remove_item,
    set_item,
)
from tests.support.stanzas import condition_of, payload_of

JULIET = "juliet@elsewhere.example"


async def test_a_new_account_has_an_empty_roster(server, account):
    romeo = await server.login(account("romeo"))
    assert items_of(await romeo.roster()) == {}


async def test_add_change_and_remove(server, account):
    romeo = await server.login(account("romeo"))
    answer = await set_item(romeo, JULIET, name="Juliet", groups=("Friends", "Verona"))
    assert answer.get("type") == "result"
    assert len(answer) == 0, "the answer to a set is empty"
    assert await item(romeo, JULIET) == Item(name="Juliet", groups=frozenset({"Friends", "Verona"}))

    await set_item(romeo, JULIET, name="Jules")
    assert await item(romeo, JULIET) == Item(name="Jules"), "a set replaces the whole item"

    assert (await remove_item(romeo, JULIET)).get("type") == "result"
    assert items_of(await romeo.roster()) == {}


async def test_the_roster_outlives_the_session(server, account):
    account_ = account("romeo")
    romeo = await server.login(account_)
    await set_item(romeo, JULIET, name="Juliet", groups=("Friends",))
    await romeo.end()
    again = await server.login(account_)
    assert await item(again, JULIET) == Item(name="Juliet", groups=frozenset({"Friends"}))


async def test_the_roster_may_be_asked_for_by_address(server, account):
    romeo = await server.login(account("romeo"))
    answer = await romeo.get(f"<query xmlns='{ROSTER}'/>", to=romeo.bare)
    assert items_of(answer) == {}
    answer = await romeo.set(f"<query xmlns='{ROSTER}'><item jid='{JULIET}'/></query>", to=romeo.bare)
    assert answer.get("type") == "result"


async def test_pushes_go_to_interested_resources_only(server, account):
    account_ = account("romeo")
    interested, other, deaf = [await server.login(account_) for _ in range(3)]
    await interested.roster()
    await other.roster()
    await deaf.available()
    await interested.drained()
    await other.drained()
    await set_item(deaf, JULIET, name="Juliet")
    for client in (interested, other):
        assert (await receives_push(client))[:2] == (JULIET, Item(name="Juliet"))
    await deaf.receives_nothing()
    await remove_item(interested, JULIET)
    for client in (interested, other):
        assert (await receives_push(client))[:2] == (JULIET, Item(subscription="remove"))
    await deaf.receives_nothing(after=[interested])


async def test_the_one_who_changes_gets_the_push_too(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.roster()
    await set_item(romeo, JULIET, name="Juliet")
    assert (await receives_push(romeo))[:2] == (JULIET, Item(name="Juliet"))


@pytest.mark.parametrize("subscription", ["to", "from", "both", "none"])
async def test_clients_cannot_set_the_subscription(server, account, subscription):
    """RFC 6121, 2.1.2.5: the server ignores any value but remove."""
    romeo = await server.login(account("romeo"))
    answer = await romeo.set(
        f"<query xmlns='{ROSTER}'><item jid='{JULIET}' subscription='{subscription}' ask='subscribe'/></query>"
    )
    assert answer.get("type") == "result"
    assert await item(romeo, JULIET) == Item()


async def test_clients_cannot_set_approval(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.set(f"<query xmlns='{ROSTER}'><item jid='{JULIET}' approved='true'/></query>")
    assert await item(romeo, JULIET) == Item()


async def test_a_set_keeps_the_subscription(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    await set_item(romeo, juliet.bare, name="Juliet")
    assert await item(romeo, juliet.bare) == Item("both", name="Juliet")


async def test_removing_what_is_not_there(server, account):
    romeo = await server.login(account("romeo"))
    assert condition_of(await remove_item(romeo, JULIET)) == "item-not-found"


BAD = {
    "no item": (f"<query xmlns='{ROSTER}'/>", "bad-request"),
    "two items": (f"<query xmlns='{ROSTER}'><item jid='a@b.example'/><item jid='c@b.example'/></query>", "bad-request"),
    "no address": (f"<query xmlns='{ROSTER}'><item name='x'/></query>", "bad-request"),
    "malformed address": (f"<query xmlns='{ROSTER}'><item jid='@b'/></query>", "jid-malformed"),
    "group twice": (
        f"<query xmlns='{ROSTER}'><item jid='a@b.example'><group>x</group><group>x</group></item></query>",
        "bad-request",
    ),
    "empty group": (
        f"<query xmlns='{ROSTER}'><item jid='a@b.example'><group/></item></query>",
        "not-acceptable",
    ),
    "name too long": (
        f"<query xmlns='{ROSTER}'><item jid='a@b.example' name='{'x' * 5000}'/></query>",
        "not-acceptable",
    ),
    "group too long": (
        f"<query xmlns='{ROSTER}'><item jid='a@b.example'><group>{'x' * 5000}</group></item></query>",
        "not-acceptable",
    ),
}


@pytest.mark.parametrize(("payload", "condition"), BAD.values(), ids=BAD.keys())
async def test_sets_that_are_refused(server, account, payload, condition):
    romeo = await server.login(account("romeo"))
    assert condition_of(await romeo.set(payload)) == condition
    assert items_of(await romeo.roster()) == {}


async def test_addresses_are_normalised(server, account):
    romeo = await server.login(account("romeo"))
    await set_item(romeo, "JULIET@Elsewhere.Example", name="Juliet")
    assert await item(romeo, JULIET) == Item(name="Juliet")


async def test_item_with_a_resource(server, account):
    """RFC 6121, 2.1.2.3 wants bare JIDs, 1.3.2 lets a server store what it is given: here the resource is dropped."""
    romeo = await server.login(account("romeo"))
    answer = await romeo.set(f"<query xmlns='{ROSTER}'><item jid='{JULIET}/balcony'/></query>")
    found = items_of(await romeo.roster())
    assert (answer.get("type") == "error" and found == {}) or set(found) == {JULIET}


async def test_the_roster_of_somebody_else(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    payload = f"<query xmlns='{ROSTER}'><item jid='{JULIET}' name='spy'/></query>"
    assert condition_of(await romeo.set(payload, to=juliet.bare)) in ("forbidden", "service-unavailable")
    assert condition_of(await romeo.get(f"<query xmlns='{ROSTER}'/>", to=juliet.bare)) in (
        "forbidden",
        "service-unavailable",
    )
    assert items_of(await juliet.roster()) == {}


async def test_special_characters(server, account):
    romeo = await server.login(account("romeo"))
    await set_item(romeo, JULIET, name="&lt;J&gt; &amp; &quot;R&quot; &apos;", groups=("a &amp; b", "ü", "🎭"))
    assert await item(romeo, JULIET) == Item(name='<J> & "R" \'', groups=frozenset({"a & b", "ü", "🎭"}))


async def test_as_many_items_as_allowed(server_with, account):
    server = server_with({"modules": {"roster": {"max_items": 3}}})
    romeo = await server.login(account("romeo"))
    for number in range(3):
        assert (await set_item(romeo, f"friend{number}@b.example")).get("type") == "result"
    assert condition_of(await set_item(romeo, "one-too-many@b.example")) in ("resource-constraint", "not-allowed")
    assert (await set_item(romeo, "friend1@b.example", name="changed")).get("type") == "result"
    assert len(items_of(await romeo.roster())) == 3


async def test_a_large_roster(server, account):
    romeo = await server.login(account("romeo"))
    expected = {f"friend{number}@b.example" for number in range(200)}
    for jid in sorted(expected):
        assert (await set_item(romeo, jid, name="x" * 50, groups=("Friends",))).get("type") == "result"
    assert set(items_of(await romeo.roster())) == expected


async def test_changes_at_the_same_time(server, account):
    """Two resources change the roster at once: nothing is lost."""
    account_ = account("romeo")
    clients = [await server.login(account_) for _ in range(2)]
    for number in range(20):
        for index, client in enumerate(clients):
            jid = f"friend{number}-{index}@b.example"
            await client.send(f"<iq type='set' id='s'><query xmlns='{ROSTER}'><item jid='{jid}'/></query></iq>")
    for client in clients:
        for _ in range(20):
            await client.receives(f"<iq type='result' id='s' to='{client.full}'/>")
    assert len(items_of(await clients[0].roster())) == 40


# ------------------------------------------------------------------------------------------------- versioning


async def test_versioning_nothing_changed(server, account):
    account_ = account("romeo")
    romeo = await server.login(account_)
    await set_item(romeo, JULIET, name="Juliet")
    version = payload_of(await romeo.roster("")).get("ver")
    assert version, "a client that knows versioning gets the version"
    answer = await romeo.roster(version)
    assert answer.get("type") == "result"
    assert len(answer) == 0, f"nothing changed, so nothing is sent: {show(answer)}"
    again = await server.login(account_)
    assert len(await again.roster(version)) == 0, "versions hold for all resources"


async def test_versioning_after_a_change(server, account):
    """The server may send the whole roster, or an empty result and pushes (RFC 6121, 2.6.2)."""
    romeo = await server.login(account("romeo"))
    await set_item(romeo, JULIET, name="Juliet")
    version = payload_of(await romeo.roster("")).get("ver")
    await set_item(romeo, "nurse@elsewhere.example")
    assert (await receives_push(romeo))[0] == "nurse@elsewhere.example"
    answer = await romeo.roster(version)
    if len(answer):
        assert set(items_of(answer)) == {JULIET, "nurse@elsewhere.example"}
    else:
        jid, _, newest = await receives_push(romeo)
        assert jid == "nurse@elsewhere.example"
        assert newest not in ("", version)


async def test_pushes_carry_the_version(server, account):
    account_ = account("romeo")
    romeo = await server.login(account_)
    await romeo.roster("")
    await set_item(romeo, JULIET)
    _, _, version = await receives_push(romeo)
    assert version
    assert len(await romeo.roster(version)) == 0, "the version of the last push is the newest"


async def test_unknown_version(server, account):
    romeo = await server.login(account("romeo"))
    await set_item(romeo, JULIET)
    assert set(items_of(await romeo.roster("no such version"))) == {JULIET}


# ------------------------------------------------------------------------------------------ removing a contact


async def test_removing_a_contact_ends_both_subscriptions(server, account):
    """RFC 6121, 2.5.2: the contact gets unsubscribe and unsubscribed."""
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    for client in (romeo, juliet):
        await client.roster()
        await client.available()
    for client in (romeo, juliet):
        await client.drained()

    await remove_item(romeo, juliet.bare)

    heard = await juliet.drained()
    kinds = [node.get("type") for node in heard if node.tag.endswith("}presence")]
    assert {"unsubscribe", "unsubscribed", "unavailable"} <= set(kinds)
    assert (await item(juliet, romeo.bare)).state == ("none", False)
    told = [node.get("type") for node in await romeo.drained() if node.tag.endswith("}presence")]
    assert told == ["unavailable"], "the contact's presence is gone too"
