"""Row 15: roster pushes that others forge (CVE-2015-8688, CVE-2016-9928). Clients that trust them are protected here."""

from __future__ import annotations

import pytest

from tests.support.client import befriend
from tests.support.roster import ROSTER, items_of

FORGED = f"<query xmlns='{ROSTER}'><item jid='tybalt@evil.example' subscription='both' name='Romeo'/></query>"


@pytest.mark.parametrize("relation", ["stranger", "friend", "own other resource"])
@pytest.mark.parametrize("address", ["full", "bare"])
async def test_never_relayed(server, account, relation, address):
    juliet = await server.login(account("juliet"))
    tybalt = await server.login(juliet.account if relation == "own other resource" else account("tybalt"))
    if relation == "friend":
        await befriend(tybalt, juliet)
    await juliet.roster()
    await juliet.available()
    await juliet.drained()
    await tybalt.send(f"<iq type='set' id='push' to='{getattr(juliet, address)}'>{FORGED}</iq>")
    heard = await tybalt.drained()
    answers = [node for node in heard if node.get("id") == "push"]
    assert len(answers) == 1
    if relation == "own other resource" and address == "bare":
        assert answers[0].get("type") == "result", "that is how one changes one's own roster"
        return
    assert answers[0].get("type") == "error"
    await juliet.receives_nothing()
    assert "tybalt@evil.example" not in items_of(await juliet.roster())


async def test_from_another_host(server, account):
    juliet = await server.online(account("juliet"))
    tybalt = await server.login(account("tybalt", host="other.example"))
    await tybalt.send(f"<iq type='set' id='push' to='{juliet.full}'>{FORGED}</iq>")
    assert (await tybalt.next()).get("type") == "error"
    await juliet.receives_nothing()


@pytest.mark.parametrize("sender", ["localhost", "juliet", ""])
async def test_with_a_forged_sender(server, account, sender):
    juliet, tybalt = await server.online(account("juliet")), await server.login(account("tybalt"))
    claimed = {"localhost": "localhost", "juliet": juliet.bare, "": ""}[sender]
    await tybalt.send(f"<iq type='set' id='push' from='{claimed}' to='{juliet.full}'>{FORGED}</iq>")
    await tybalt.stream_error("invalid-from")
    await juliet.receives_nothing()


async def test_hidden_in_other_stanzas(server, account):
    """In a message it is just a payload; the recipient sees from whom."""
    juliet, tybalt = await server.online(account("juliet")), await server.login(account("tybalt"))
    await tybalt.send(f"<message to='{juliet.full}' type='chat'>{FORGED}</message>")
    received = await juliet.next()
    assert received.get("from") == tybalt.full
    assert received.tag == "{jabber:client}message"
