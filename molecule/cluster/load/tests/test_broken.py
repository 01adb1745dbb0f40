"""What the load finds when something between server and clients loses, repeats or garbles: the proof that it would tell."""

from __future__ import annotations

import re

import pytest

from bench.stream import attribute
from load import table
from load.crowd import Plan
from load.tests.relay import Relay

_ID = re.compile(rb" id='[^']*'| id=\"[^\"]*\"")
ONE_PAIR = Plan(pairs=1, sleepers=0, rate=20)


class Garbler:
    """Does something to the message that comes when it has been armed, and keeps the number of stanzas as it is."""

    def __init__(self, garble):
        self._garble = garble
        self._recipient = b""
        self.armed = False
        self.kept = b""

    def __call__(self, element):
        recipient = (attribute(element, b"to") or b"").partition(b"/")[0]
        if not element.startswith(b"<message") or not self.armed or self._recipient not in {b"", recipient}:
            return [element]
        # Each recipient of a pair has one sender, so what comes next for it comes from the same one.
        self._recipient = recipient
        return self._garble(self, element)


def lose(garbler, element):
    """Another message comes instead."""
    garbler.armed = False
    return [_ID.sub(b" id='unheard-of'", element)]


def repeat(garbler, element):
    """The same message comes instead of the next one."""
    if not garbler.kept:
        garbler.kept = element
        return [element]
    garbler.armed = False
    return [garbler.kept]


def swap(garbler, element):
    """A message comes behind the next one of the same sender."""
    if not garbler.kept:
        garbler.kept = element
        return []
    garbler.armed = False
    return [element, garbler.kept]


def damage(garbler, element):
    """The text is another one."""
    garbler.armed = False
    return [element.replace(b"quick brown fox", b"quick brown dog")]


def bounce(garbler, element):
    """An error comes back to the sender for a message that it has sent itself; the message goes on, too."""
    garbler.armed = False
    error = b"<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    return [b"<message type='error' id='unheard-of'>%b</message>" % error]


async def garbled(load, server, garble):
    garbler = Garbler(garble)
    relay = Relay(server.clear_port, garbler)
    await relay.start()
    try:
        crowd = load(relay.port, plan=ONE_PAIR)
        await crowd.begin()
        await crowd.talk(20)
        garbler.armed = True
        await crowd.until(lambda: not garbler.armed, "a message was garbled")
        await crowd.talk(20)
        return await crowd.settle(1)
    finally:
        await relay.close()


@pytest.mark.parametrize(
    ("garble", "found", "complaint"),
    [
        (lose, {"lost": 1, "strays": 1}, "1 acknowledged messages were lost"),
        (repeat, {"lost": 1, "duplicated": 1}, "1 messages came more than once"),
        (damage, {"damaged": 1}, "1 messages were damaged"),
        (bounce, {"lost": 1, "strays": 1}, "1 acknowledged messages were lost"),
    ],
)
async def test_messages_that_were_tampered_with(load, server, garble, found, complaint):
    report = await garbled(load, server, garble)
    findings = report.as_json()["findings"]
    names = ["lost", "duplicated", "strays", "damaged", "misordered", "misdelivered", "unacknowledged"]
    assert {name: findings[name] for name in names} == dict.fromkeys(names, 0) | found
    complaints = table.complaints(report.as_json())
    assert complaint in complaints
    if "lost" in found:
        assert any("received never" in example for example in report.examples)
        assert report.incomplete == ["1 messages to clients that are online have not come to rest"]


async def test_messages_in_another_order(load, server):
    report = await garbled(load, server, swap)
    assert report.findings.misordered == 1
    assert (report.findings.lost, report.findings.duplicated) == (0, 0)
    assert "1 messages came in another order than they were sent" in table.complaints(report.as_json())


async def test_a_contact_that_is_seen_although_it_is_gone(load, server):
    def hold_back(element):
        return [] if b"type='unavailable'" in element or b'type="unavailable"' in element else [element]

    relay = Relay(server.clear_port, hold_back)
    await relay.start()
    try:
        crowd = load(relay.port, plan=Plan(pairs=1, sleepers=1, rate=20))
        await crowd.begin()
        await crowd.talk(20)
        report = await crowd.settle(1)
        crowd.again()
        await crowd.talk(20)
        second = await crowd.settle(1)
    finally:
        await relay.close()
    assert set(second.ghosts).isdisjoint(report.ghosts), "each is told once"
    watcher = crowd.crowd.watcher(crowd.crowd.sleepers[0])
    assert any(ghost.startswith(watcher.account.user) for ghost in report.ghosts)
    assert any("contacts are seen that are not there" in each for each in table.complaints(report.as_json()))


async def test_a_client_that_does_not_come_back(load, server, relay):
    crowd = load(relay.port, server.clear_port, plan=ONE_PAIR)
    await crowd.begin()
    await crowd.talk(20)
    crowd.client_of(0).stop()
    report = await crowd.settle(1)
    assert report.incomplete[0].startswith("not online: ")


async def test_a_message_that_comes_before_stream_management_is_enabled(load, server):
    def early(element):
        return (
            [b"<message id='unheard-of'><body>hi</body></message>", element]
            if element.startswith(b"<enabled")
            else [element]
        )

    relay = Relay(server.clear_port, early)
    await relay.start()
    try:
        crowd = load(relay.port, plan=ONE_PAIR)
        await crowd.begin()
        assert crowd.client_of(0).session == 1, "it has logged in at once"
        await crowd.talk(20)
        relay.cut()
        report = await crowd.settle()
    finally:
        await relay.close()
    assert report.resumptions == 2
    assert table.complaints(report.as_json()) == []
