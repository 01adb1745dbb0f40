"""A client's roster and who of it is online."""

import pytest

from load.contacts import Contacts

BOB = b"bob@example.org"


@pytest.fixture
def sent():
    return []


@pytest.fixture
def contacts(sent):
    return Contacts(sent.append)


def roster(subscription, kind=b"result"):
    return (
        b"<iq type='%b' id='roster'><query xmlns='jabber:iq:roster'><item jid='%b' subscription='%b'/></query></iq>"
        % (kind, BOB, subscription)
    )


def test_subscribes_unless_it_sees_the_friend_already(contacts, sent):
    contacts.befriend(BOB)
    assert sent == [b"<presence type='subscribe' to='bob@example.org'/>"]
    contacts.iq(roster(b"both"))
    sent.clear()
    contacts.befriend(BOB)
    assert sent == []


def test_friends_are_those_with_a_subscription_both_ways(contacts):
    contacts.befriend(BOB)
    assert not contacts.befriended
    contacts.iq(roster(b"to"))
    assert not contacts.befriended
    contacts.iq(roster(b"both", kind=b"set"))
    assert contacts.befriended


def test_friends_get_our_presence_others_do_not(contacts, sent):
    contacts.friends.add(BOB)
    contacts.presence(b"<presence type='subscribe' from='bob@example.org'/>")
    contacts.presence(b"<presence type='subscribe' from='mallory@example.org'/>")
    assert sent == [b"<presence type='subscribed' to='bob@example.org'/>"]


def test_who_is_online(contacts):
    contacts.presence(b"<presence from='bob@example.org/a'/>")
    contacts.presence(b"<presence from='bob@example.org/b'><show>away</show></presence>")
    contacts.presence(b"<presence from='bob@example.org/a' type='unavailable'/>")
    assert contacts.online == {BOB: {b"bob@example.org/b"}}
    contacts.begin()
    assert contacts.online == {}


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (
            b"<iq type='get' id='1' from='example.org'><ping xmlns='urn:xmpp:ping'/></iq>",
            b"<iq id='1' to='example.org' type='result'/>",
        ),
        (roster(b"both", kind=b"set"), b"<iq id='roster' type='result'/>"),
    ],
)
def test_requests_are_answered(contacts, sent, request_, answer):
    contacts.iq(request_)
    assert sent == [answer]


def test_what_it_does_not_know_is_refused(contacts, sent):
    contacts.iq(b"<iq type='get' id='1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
    assert b"service-unavailable" in sent[0]
