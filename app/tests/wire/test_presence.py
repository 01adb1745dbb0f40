"""Presence (RFC 6121 section 4): broadcast, probes, directed presence, priorities."""

from __future__ import annotations

import pytest

from tests.support.client import befriend
from tests.support.matching import ANY, show
from tests.support.stanzas import condition_of


async def friends(server, account, *, host: str = "localhost"):
    """Two bound sessions with a mutual subscription, neither available."""
    romeo = await server.login(account("romeo"))
    juliet = await server.login(account("juliet", host=host))
    await befriend(romeo, juliet)
    await romeo.drained()
    await juliet.drained()
    return romeo, juliet


def presence(sender: str, to: str, kind: str | None = None, inner: str = "") -> str:
    """A presence stanza as it arrives."""
    shown = f" type='{kind}'" if kind else ""
    return f"<presence from='{sender}' to='{to}'{shown}>{inner}</presence>"


# -------------------------------------------------------------------------------------------------- broadcast


async def test_initial_presence_is_echoed_to_the_sender(server, account):
    """RFC 6121, 4.2.2: everybody is subscribed to his own presence."""
    romeo = await server.login(account("romeo"))
    await romeo.send("<presence id='p1'><show>away</show><status xml:lang='en'>out</status></presence>")
    await romeo.receives(
        f"<presence from='{romeo.full}' to='{romeo.bare}' id='p1'><show>away</show><status>out</status></presence>"
    )


async def test_initial_presence_reaches_subscribers_and_brings_theirs(server, account):
    romeo, juliet = await friends(server, account)
    await juliet.available("<show>dnd</show>")
    await romeo.send("<presence><show>chat</show></presence>")
    await romeo.receives_all(
        presence(romeo.full, romeo.bare, inner="<show>chat</show>"),
        presence(juliet.full, ANY, inner="<show>dnd</show>"),
    )
    await juliet.receives(presence(romeo.full, juliet.bare, inner="<show>chat</show>"))


async def test_resources_of_one_account_see_each_other(server, account):
    romeo = account("romeo")
    one = await server.online(romeo, "one", priority=3)
    other = await server.login(romeo, "other")
    await other.send("<presence/>")
    await other.receives_all(
        presence(other.full, other.bare),
        presence(one.full, ANY, inner="<priority>3</priority>"),
    )
    await one.receives(presence(other.full, one.bare))
    await other.send("<presence type='unavailable'/>")
    await one.receives(presence(other.full, one.bare, "unavailable"))


async def test_later_presence_is_broadcast_without_probes(server, account):
    romeo, juliet = await friends(server, account)
    await romeo.available()
    await juliet.available()
    for client in (romeo, juliet):
        await client.drained()
    await romeo.send("<presence><show>xa</show><priority>5</priority></presence>")
    await juliet.receives(presence(romeo.full, juliet.bare, inner="<show>xa</show><priority>5</priority>"))
    await romeo.receives(presence(romeo.full, romeo.bare, inner="<show>xa</show><priority>5</priority>"))
    await romeo.receives_nothing()


async def test_presence_is_broadcast_with_everything_in_it(server, account):
    romeo, juliet = await friends(server, account)
    await juliet.available()
    inner = (
        "<show>away</show><status>a &amp; b</status><status xml:lang='it'>via</status><priority>1</priority>"
        "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:example' ver='x'/>"
        "<nick xmlns='http://jabber.org/protocol/nick'>R</nick>"
    )
    await romeo.send(f"<presence id='x'>{inner}</presence>")
    await juliet.receives(f"<presence from='{romeo.full}' to='{juliet.bare}' id='x'>{inner}</presence>")


async def test_unavailable_reaches_subscribers_once(server, account):
    romeo, juliet = await friends(server, account)
    await romeo.available()
    await juliet.available()
    await juliet.drained()
    await romeo.send("<presence type='unavailable'><status>gone</status></presence>")
    await juliet.receives(presence(romeo.full, juliet.bare, "unavailable", "<status>gone</status>"))
    await romeo.end()
    await juliet.receives_nothing()


@pytest.mark.parametrize("how", ["end", "drop", "stream error"])
async def test_the_end_of_a_session_makes_it_unavailable(server, account, how):
    romeo, juliet = await friends(server, account)
    await romeo.available()
    await juliet.available()
    await juliet.drained()
    if how == "end":
        await romeo.end()
    elif how == "drop":
        romeo.drop()
    else:
        await romeo.send("<message><</message>")
    await juliet.receives(presence(romeo.full, juliet.bare, "unavailable", "{more}"))


async def test_no_presence_without_subscription(server, account):
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    await romeo.send("<presence><show>away</show></presence>")
    await juliet.receives_nothing(after=[romeo])


async def test_one_sided_subscription(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await romeo.send(f"<presence to='{juliet.bare}' type='subscribe'/>")
    await romeo.settled()
    await juliet.send(f"<presence to='{romeo.bare}' type='subscribed'/>")
    await juliet.settled()
    await romeo.available()
    await romeo.drained()
    await juliet.available()
    await romeo.receives(presence(juliet.full, romeo.bare))
    await juliet.receives_nothing(after=[romeo])


async def test_across_hosts(server, account):
    romeo, juliet = await friends(server, account, host="other.example")
    await romeo.available()
    await juliet.send("<presence><show>away</show></presence>")
    await juliet.receives_all(presence(juliet.full, juliet.bare, inner="<show>away</show>"), presence(romeo.full, ANY))
    await romeo.receives(presence(juliet.full, romeo.bare, inner="<show>away</show>"))
    await juliet.end()
    await romeo.receives(presence(juliet.full, romeo.bare, "unavailable", "{more}"))


async def test_available_again(server, account):
    romeo, juliet = await friends(server, account)
    await juliet.available()
    for _ in range(2):
        await romeo.available()
        await juliet.receives(presence(romeo.full, juliet.bare))
        assert [node.get("from") for node in await romeo.drained()] == [juliet.full]
        await romeo.unavailable()
        await juliet.receives(presence(romeo.full, juliet.bare, "unavailable"))


async def test_unavailable_without_having_been_available(server, account):
    romeo, juliet = await friends(server, account)
    await juliet.available()
    await romeo.send("<presence type='unavailable'/>")
    await juliet.receives_nothing(after=[romeo])


# ----------------------------------------------------------------------------------------------------- probes


async def test_probe_by_a_subscriber(server, account):
    romeo, juliet = await friends(server, account)
    await juliet.available("<show>away</show>")
    other = await server.online(juliet.account, "other", inner="<show>dnd</show>")
    await juliet.drained()
    await romeo.send(f"<presence to='{juliet.bare}' type='probe'/>")
    await romeo.receives_all(
        presence(juliet.full, ANY, inner="<show>away</show>"),
        presence(other.full, ANY, inner="<show>dnd</show>"),
    )
    await juliet.receives_nothing()


async def test_probe_of_a_contact_who_is_away(server, account):
    """RFC 6121, 4.3.2: unavailable presence from the bare JID, or silence."""
    romeo, juliet = await friends(server, account)
    await romeo.send(f"<presence to='{juliet.bare}' type='probe'/>")
    for node in await romeo.drained():
        assert (node.get("from"), node.get("type")) == (juliet.bare, "unavailable"), show(node)


async def test_probe_after_the_subscription_has_ended(server, account):
    romeo, juliet = await friends(server, account)
    await juliet.available()
    await juliet.send(f"<presence to='{romeo.bare}' type='unsubscribed'/>")
    await juliet.settled()
    await romeo.drained()
    await romeo.send(f"<presence to='{juliet.bare}' type='probe'/>")
    await romeo.receives(presence(juliet.bare, romeo.full, "unsubscribed"))


async def test_probe_of_a_full_jid(server, account):
    romeo, juliet = await friends(server, account)
    await juliet.available("<show>away</show>")
    await server.online(juliet.account, "other")
    await romeo.send(f"<presence to='{juliet.full}' type='probe'/>")
    senders = [node.get("from") for node in await romeo.drained()]
    assert juliet.full in senders


# -------------------------------------------------------------------------------------------------- directed


async def test_directed_presence(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    await romeo.send(f"<presence to='{juliet.full}'><show>chat</show></presence>")
    await juliet.receives(presence(romeo.full, juliet.full, inner="<show>chat</show>"))
    await romeo.send(f"<presence to='{juliet.full}' type='unavailable'/>")
    await juliet.receives(presence(romeo.full, juliet.full, "unavailable"))
    await romeo.end()
    await juliet.receives_nothing()


@pytest.mark.parametrize("how", ["unavailable", "end", "drop"])
@pytest.mark.parametrize("address", ["bare", "full"])
async def test_directed_presence_ends_with_the_session(server, account, how, address):
    """RFC 6121, 4.6.3: unavailable goes to everybody who was sent directed presence."""
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    to = getattr(juliet, address)
    await romeo.send(f"<presence to='{to}'/>")
    await juliet.receives(presence(romeo.full, to))
    if how == "unavailable":
        await romeo.send("<presence type='unavailable'/>")
    elif how == "end":
        await romeo.end()
    else:
        romeo.drop()
    await juliet.receives(presence(romeo.full, to, "unavailable", "{more}"))
    await juliet.receives_nothing()


async def test_directed_presence_without_having_been_available(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    await romeo.send(f"<presence to='{juliet.full}'/>")
    await juliet.receives(presence(romeo.full, juliet.full))
    await romeo.end()
    await juliet.receives(presence(romeo.full, juliet.full, "unavailable", "{more}"))


async def test_a_subscriber_with_directed_presence_hears_the_end_once(server, account):
    romeo, juliet = await friends(server, account)
    await juliet.available()
    await romeo.available()
    await juliet.drained()
    await romeo.send(f"<presence to='{juliet.bare}'><show>chat</show></presence>")
    await juliet.receives(presence(romeo.full, juliet.bare, inner="<show>chat</show>"))
    await romeo.end()
    await juliet.receives(presence(romeo.full, juliet.bare, "unavailable", "{more}"))
    await juliet.receives_nothing()


async def test_directed_presence_does_not_follow_changes(server, account):
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    await romeo.send(f"<presence to='{juliet.full}'/>")
    await juliet.receives(presence(romeo.full, juliet.full))
    await romeo.send("<presence><show>away</show></presence>")
    await juliet.receives_nothing(after=[romeo])


# ------------------------------------------------------------------------------------------------ priorities


@pytest.mark.parametrize("priority", ["-128", "-1", "0", "127", " 5 ", "+7"])
async def test_priorities_in_range(server, account, priority):
    romeo = await server.login(account("romeo"))
    await romeo.send(f"<presence><priority>{priority}</priority></presence>")
    await romeo.receives(presence(romeo.full, romeo.bare, inner=f"<priority>{ANY}</priority>"))


@pytest.mark.parametrize("priority", ["128", "-129", "high", "1.5", "99999999999999999999"])
async def test_priorities_out_of_range(server, account, priority):
    romeo = await server.login(account("romeo"))
    await romeo.send(f"<presence id='p'><priority>{priority}</priority></presence>")
    assert condition_of(await romeo.next()) == "bad-request"
    await romeo.receives_nothing()


async def test_a_resource_that_turns_negative_gets_no_more_messages(server, account):
    romeo = await server.login(account("romeo"))
    juliet = await server.online(account("juliet"))
    await romeo.send(f"<message to='{juliet.bare}' type='chat'><body>1</body></message>")
    await juliet.receives(f"<message from='{romeo.full}' to='{juliet.bare}' type='chat'><body>1</body></message>")
    await juliet.available(priority=-5)
    await romeo.send(f"<message to='{juliet.bare}' type='chat'><body>2</body></message>")
    await juliet.receives_nothing(after=[romeo])
    await juliet.available(priority=0)
    assert (await juliet.next()).findtext("{jabber:client}body") == "2"


async def test_a_resource_that_turns_unavailable_gets_no_more_messages(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    await juliet.unavailable()
    await romeo.send(f"<message to='{juliet.bare}' type='headline'><body>1</body></message>")
    await juliet.receives_nothing(after=[romeo])


@pytest.mark.parametrize("show_value", ["away", "chat", "dnd", "xa"])
async def test_show_values(server, account, show_value):
    romeo = await server.login(account("romeo"))
    await romeo.send(f"<presence><show>{show_value}</show></presence>")
    await romeo.receives(presence(romeo.full, romeo.bare, inner=f"<show>{show_value}</show>"))
