"""Presence subscriptions (RFC 6121 section 3 and the tables of its appendix A)."""

from __future__ import annotations

import pytest

from tests.support.client import Client, befriend
from tests.support.matching import show
from tests.support.roster import Item, item, items_of, receives_push, remove_item, set_item

# The states of a subscription, seen from the user: what the rosters of user and contact say about each other. A pending
# request from the contact does not show in the user's roster, but in the contact's.
STATES = {
    "None": (("none", False), ("none", False)),
    "None + Pending Out": (("none", True), ("none", False)),
    "None + Pending In": (("none", False), ("none", True)),
    "None + Pending Out+In": (("none", True), ("none", True)),
    "To": (("to", False), ("from", False)),
    "To + Pending In": (("to", False), ("from", True)),
    "From": (("from", False), ("to", False)),
    "From + Pending Out": (("from", True), ("to", False)),
    "Both": (("both", False), ("both", False)),
}

# How to get there: who (user or contact) sends what.
STEPS = {
    "None": [],
    "None + Pending Out": ["user subscribe"],
    "None + Pending In": ["contact subscribe"],
    "None + Pending Out+In": ["user subscribe", "contact subscribe"],
    "To": ["user subscribe", "contact subscribed"],
    "To + Pending In": ["user subscribe", "contact subscribed", "contact subscribe"],
    "From": ["contact subscribe", "user subscribed"],
    "From + Pending Out": ["contact subscribe", "user subscribed", "user subscribe"],
    "Both": ["user subscribe", "contact subscribed", "contact subscribe", "user subscribed"],
}

# Appendix A.2 (what the user's server does with what the user sends) and A.3 (what the contact's server does with it):
# the state afterwards, and whether the contact hears of it.
TABLE = {
    "subscribe": {
        "None": ("None + Pending Out", True),
        "None + Pending Out": ("None + Pending Out", False),
        "None + Pending In": ("None + Pending Out+In", True),
        "None + Pending Out+In": ("None + Pending Out+In", False),
        "To": ("To", False),
        "To + Pending In": ("To + Pending In", False),
        "From": ("From + Pending Out", True),
        "From + Pending Out": ("From + Pending Out", False),
        "Both": ("Both", False),
    },
    "unsubscribe": {
        "None": ("None", False),
        "None + Pending Out": ("None", True),
        "None + Pending In": ("None + Pending In", False),
        "None + Pending Out+In": ("None + Pending In", True),
        "To": ("None", True),
        "To + Pending In": ("None + Pending In", True),
        "From": ("From", False),
        "From + Pending Out": ("From", True),
        "Both": ("From", True),
    },
    "subscribed": {
        "None": ("None", False),
        "None + Pending Out": ("None + Pending Out", False),
        "None + Pending In": ("From", True),
        "None + Pending Out+In": ("From + Pending Out", True),
        "To": ("To", False),
        "To + Pending In": ("Both", True),
        "From": ("From", False),
        "From + Pending Out": ("From + Pending Out", False),
        "Both": ("Both", False),
    },
    "unsubscribed": {
        "None": ("None", False),
        "None + Pending Out": ("None + Pending Out", False),
        "None + Pending In": ("None", True),
        "None + Pending Out+In": ("None + Pending Out", True),
        "To": ("To", False),
        "To + Pending In": ("To", True),
        "From": ("None", True),
        "From + Pending Out": ("None + Pending Out", True),
        "Both": ("To", True),
    },
}
ROWS = [
    pytest.param(state, sent, outcome, id=f"{state}-{sent}")
    for sent, rows in TABLE.items()
    for state, outcome in rows.items()
]


async def subscription(client: Client, kind: str, to: str) -> None:
    """Send a presence stanza that manages a subscription; it has been handled afterwards."""
    await client.send(f"<presence to='{to}' type='{kind}'/>")
    await client.settled()


async def couple(server, account, state: str = "None") -> tuple[Client, Client]:
    """User and contact, online with their rosters, in that state, with nothing left to receive."""
    user, contact = await server.online(account("romeo")), await server.online(account("juliet"))
    for step in STEPS[state]:
        who, kind = step.split()
        sender, other = (user, contact) if who == "user" else (contact, user)
        await subscription(sender, kind, other.bare)
    for client in (user, contact):
        await client.roster()
    for client in (user, contact):
        await client.drained()
    return user, contact


async def state_of(user: Client, contact: Client) -> str:
    """The name of the state that the two rosters show."""
    seen = ((await item(user, contact.bare)).state, (await item(contact, user.bare)).state)
    names = [name for name, rosters in STATES.items() if rosters == seen]
    assert names, f"the rosters disagree: {seen}"
    return names[0]


@pytest.mark.parametrize(("state", "sent", "outcome"), ROWS)
async def test_state_machine(server, account, state, sent, outcome):
    after, heard = outcome
    user, contact = await couple(server, account, state)
    assert await state_of(user, contact) == state
    await subscription(user, sent, contact.bare)
    received = [node for node in await contact.drained() if node.get("type") == sent]
    assert len(received) == (1 if heard else 0), [show(node) for node in received]
    for node in received:
        assert node.get("from") == user.bare, "RFC 6121, 3.1.2: stamped with the bare JID"
        assert node.get("to") == contact.bare
    assert await state_of(user, contact) == after


# -------------------------------------------------------------------------------------------------- in detail


async def test_the_whole_story(server, account):
    """RFC 6121, 3.1: request, approval, presence, and the pushes between."""
    romeo, juliet = await couple(server, account)

    await romeo.send(f"<presence to='{juliet.bare}' type='subscribe' id='s1'><status>please</status></presence>")
    assert (await receives_push(romeo))[:2] == (juliet.bare, Item(ask=True))
    await juliet.receives(
        f"<presence from='{romeo.bare}' to='{juliet.bare}' type='subscribe' id='s1'><status>please</status></presence>"
    )
    await juliet.receives_nothing()

    await juliet.send(f"<presence to='{romeo.bare}' type='subscribed'/>")
    assert (await receives_push(juliet))[:2] == (romeo.bare, Item("from"))
    await juliet.receives_nothing()
    received = await romeo.drained()
    pushed = [node for node in received if node.tag.endswith("}iq")]
    presence = [(node.get("from"), node.get("type")) for node in received if node.tag.endswith("}presence")]
    assert len(pushed) == 1
    assert presence == [(juliet.bare, "subscribed"), (juliet.full, None)]


async def test_addresses_with_resources_are_made_bare(server, account):
    romeo, juliet = await couple(server, account)
    await subscription(romeo, "subscribe", juliet.full)
    assert [node.get("to") for node in await juliet.drained()] == [juliet.bare]
    assert await state_of(romeo, juliet) == "None + Pending Out"


async def test_subscribing_to_an_absent_account_looks_like_waiting(server, auth, account):
    romeo = await server.online(account("romeo"))
    nobody = auth.absent()
    await subscription(romeo, "subscribe", nobody.jid)
    await romeo.receives_nothing()
    assert await item(romeo, nobody.jid) == Item(ask=True)


async def test_subscribing_to_oneself(server, account):
    romeo = await server.online(account("romeo"))
    await romeo.send(f"<presence to='{romeo.bare}' type='subscribe'/>")
    kinds = [node.get("type") for node in await romeo.drained()]
    assert "subscribe" not in kinds
    assert (await item(romeo, romeo.bare)).subscription == "none"


async def test_a_request_waits_for_the_contact(server, account):
    """RFC 6121, 3.1.3: delivered when the contact becomes available, and again until it is answered."""
    romeo, contact = await server.online(account("romeo")), account("juliet")
    await romeo.send(f"<presence to='{contact.jid}' type='subscribe'><status>please</status></presence>")
    await romeo.settled()
    for _ in range(2):
        juliet = await server.login(contact)
        await juliet.receives_nothing()
        await juliet.available()
        requests = [node for node in await juliet.drained() if node.get("type") == "subscribe"]
        assert [(node.get("from"), node.findtext("{jabber:client}status")) for node in requests] == [
            (romeo.bare, "please")
        ]
        await juliet.end()
    juliet = await server.online(contact)
    await subscription(juliet, "subscribed", romeo.bare)
    await juliet.end()
    juliet = await server.online(contact)
    assert [node.get("type") for node in await juliet.drained() if node.get("from") == romeo.bare] == []


async def test_a_waiting_request_reaches_each_new_resource(server, account):
    romeo, contact = await server.login(account("romeo")), account("juliet")
    await subscription(romeo, "subscribe", contact.jid)
    for _ in range(2):
        juliet = await server.online(contact)
        assert [node.get("type") for node in await juliet.drained() if node.get("from") == romeo.bare] == ["subscribe"]


async def test_a_cancelled_request_is_not_delivered(server, account):
    romeo, contact = await server.login(account("romeo")), account("juliet")
    await subscription(romeo, "subscribe", contact.jid)
    await subscription(romeo, "unsubscribe", contact.jid)
    juliet = await server.online(contact)
    assert [node for node in await juliet.drained() if node.get("type") == "subscribe"] == []


async def test_a_waiting_request_does_not_show_in_the_roster(server, account):
    romeo, juliet = await couple(server, account, "None + Pending In")
    assert juliet.bare not in items_of(await romeo.roster())
    await romeo.receives_nothing()


async def test_approval_reaches_a_user_who_was_away(server, account):
    asking, juliet = account("romeo"), await server.online(account("juliet"))
    romeo = await server.login(asking)
    await subscription(romeo, "subscribe", juliet.bare)
    await romeo.end()
    await juliet.receives(f"<presence from='{asking.jid}' to='{juliet.bare}' type='subscribe'/>")
    await subscription(juliet, "subscribed", asking.jid)
    romeo = await server.login(asking)
    assert (await item(romeo, juliet.bare)).state == ("to", False)
    await romeo.available()
    senders = [node.get("from") for node in await romeo.drained() if node.get("type") is None]
    assert juliet.full in senders, "and the contact's presence comes with the first probe"


async def test_presence_comes_with_the_approval_and_goes_with_its_end(server, account):
    romeo, juliet = await couple(server, account, "None + Pending Out")
    await juliet.send(f"<presence to='{romeo.bare}' type='subscribed'/>")
    await juliet.settled()
    seen = [(n.get("from"), n.get("type")) for n in await romeo.drained() if n.tag.endswith("}presence")]
    assert seen == [(juliet.bare, "subscribed"), (juliet.full, None)]
    await juliet.send(f"<presence to='{romeo.bare}' type='unsubscribed'/>")
    await juliet.settled()
    seen = [(n.get("from"), n.get("type")) for n in await romeo.drained() if n.tag.endswith("}presence")]
    assert sorted(seen, key=str) == sorted([(juliet.full, "unavailable"), (juliet.bare, "unsubscribed")], key=str)


async def test_unsubscribing_makes_the_contact_unavailable(server, account):
    """RFC 6121, 3.3.3: the contact's server sends unavailable presence of all resources to the former subscriber."""
    romeo, juliet = await couple(server, account, "To")
    await romeo.send(f"<presence to='{juliet.bare}' type='unsubscribe'/>")
    await romeo.settled()
    await juliet.settled()
    seen = [(n.get("from"), n.get("type")) for n in await romeo.drained() if n.tag.endswith("}presence")]
    assert seen == [(juliet.full, "unavailable")]
    await juliet.send("<presence><show>away</show></presence>")
    await romeo.receives_nothing(after=[juliet])


# ----------------------------------------------------------------------------------------------- pre-approval


async def test_pre_approval(server, account):
    """RFC 6121, 3.4: a request that was approved before it came is granted at once, and the user is not asked."""
    romeo, juliet = await couple(server, account)
    await subscription(juliet, "subscribed", romeo.bare)
    jid, pushed, _ = await receives_push(juliet)
    assert (jid, pushed) == (romeo.bare, Item(approved=True))
    await romeo.receives_nothing()

    await romeo.send(f"<presence to='{juliet.bare}' type='subscribe'/>")
    await romeo.settled()
    kinds = [node.get("type") for node in await juliet.drained() if node.tag.endswith("}presence")]
    assert "subscribe" not in kinds
    assert await state_of(romeo, juliet) == "To"
    seen = [(n.get("from"), n.get("type")) for n in await romeo.drained() if n.tag.endswith("}presence")]
    assert (juliet.bare, "subscribed") in seen
    assert (juliet.full, None) in seen


async def test_pre_approval_while_away(server, account):
    romeo, contact = await server.online(account("romeo")), account("juliet")
    juliet = await server.login(contact)
    await subscription(juliet, "subscribed", romeo.bare)
    await juliet.end()
    await subscription(romeo, "subscribe", contact.jid)
    assert (await item(romeo, contact.jid)).state == ("to", False)
    juliet = await server.online(contact)
    assert [node for node in await juliet.drained() if node.get("type") == "subscribe"] == []


async def test_pre_approval_taken_back(server, account):
    romeo, juliet = await couple(server, account)
    await subscription(juliet, "subscribed", romeo.bare)
    await subscription(juliet, "unsubscribed", romeo.bare)
    assert not (await item(juliet, romeo.bare)).approved
    await romeo.receives_nothing()
    await subscription(romeo, "subscribe", juliet.bare)
    assert [node.get("type") for node in await juliet.drained() if node.tag.endswith("}presence")] == ["subscribe"]


async def test_pre_approval_survives_in_the_roster(server, account):
    romeo, juliet = await couple(server, account)
    await subscription(juliet, "subscribed", romeo.bare)
    await set_item(juliet, romeo.bare, name="Romeo")
    assert await item(juliet, romeo.bare) == Item(name="Romeo", approved=True)
    await remove_item(juliet, romeo.bare)
    assert await item(juliet, romeo.bare) == Item()


# ------------------------------------------------------------------------------------------------ across hosts


async def test_between_two_hosts(server, account):
    romeo = await server.login(account("romeo"))
    juliet = await server.login(account("juliet", host="other.example"))
    await befriend(romeo, juliet)
    assert await state_of(romeo, juliet) == "Both"
    await juliet.available()
    await romeo.available()
    senders = [node.get("from") for node in await romeo.drained() if node.tag.endswith("}presence")]
    assert juliet.full in senders


async def test_unknown_domain(server, account):
    romeo = await server.online(account("romeo"))
    await subscription(romeo, "subscribe", "juliet@unknown.example")
    await subscription(romeo, "unsubscribe", "juliet@unknown.example")
    assert (await item(romeo, "juliet@unknown.example")).state == ("none", False)
