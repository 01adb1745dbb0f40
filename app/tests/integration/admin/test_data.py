"""mongooseimctl: rosters, vCards, last activity, private storage."""

from __future__ import annotations

import re
import time

import pytest

from tests.support.accounts import fresh_name
from tests.support.stanzas import condition_of, payload_of

HOST = "localhost"
ROSTER = "jabber:iq:roster"
VCARD = "vcard-temp"
LAST = "jabber:iq:last"


@pytest.fixture
async def romeo(server, account):
    return await server.login(account("romeo"), "orchard")


async def roster_of(client) -> dict[str | None, tuple[str | None, str | None, list[str | None]]]:
    """The roster as the client sees it; it gets pushes from now on."""
    items = payload_of(await client.get(f"<query xmlns='{ROSTER}'/>"))
    return {
        item.get("jid"): (item.get("name"), item.get("subscription"), [group.text for group in item]) for item in items
    }


# ---------------------------------------------------------------------------------------------------- rosters


async def test_add_rosteritem(ctl, romeo):
    assert await roster_of(romeo) == {}
    assert await ctl.text("add_rosteritem", romeo.user, HOST, "Juliet", "capulet.example", "Jules", "Love", "both") == (
        f"Added the item to the roster of {romeo.bare}"
    )
    await romeo.receives(
        f"<iq type='set' id='{{any}}' to='{romeo.full}'><query xmlns='{ROSTER}' ver='{{any}}'>"
        "<item jid='juliet@capulet.example' name='Jules' subscription='both'><group>Love</group></item></query></iq>"
    )
    assert await ctl.json("add_rosteritem", romeo.user, HOST, "nurse", "capulet.example", "", "", "to")
    assert await roster_of(romeo) == {
        "juliet@capulet.example": ("Jules", "both", ["Love"]),
        "nurse@capulet.example": (None, "to", []),
    }


async def test_add_rosteritem_refusals(ctl, romeo):
    item = ("capulet.example", "", "")
    assert "no subscription" in await ctl.refused("add_rosteritem", romeo.user, HOST, "x", *item, "maybe", code=2)
    assert "does not exist" in await ctl.refused("add_rosteritem", fresh_name(), HOST, "x", *item, "both")
    assert "can't be a contact" in await ctl.refused("add_rosteritem", romeo.user, HOST, "a b", *item, "both")


async def test_delete_rosteritem(ctl, romeo):
    for nick in ("one", "other"):
        await ctl.text("add_rosteritem", romeo.user, HOST, nick, "capulet.example", nick, "", "none")
    assert await ctl.text("delete_rosteritem", romeo.user, HOST, "one", "capulet.example") == (
        f"The item removed from roster of {romeo.bare}"
    )
    assert list(await roster_of(romeo)) == ["other@capulet.example"]
    assert await ctl.json("delete_rosteritem", romeo.user, HOST, "other", "capulet.example")
    assert "is not in the roster" in await ctl.refused("delete_rosteritem", romeo.user, HOST, "one", "capulet.example")


async def test_get_roster(ctl, romeo):
    assert await ctl.text("get_roster", romeo.user, HOST) == ""
    await romeo.set(
        f"<query xmlns='{ROSTER}'><item jid='juliet@{HOST}' name='J'><group>b</group><group>a</group></item></query>"
    )
    await romeo.send("<presence type='subscribe' to='tybalt@localhost'/>")
    await romeo.settled()
    assert sorted(await ctl.lines("get_roster", romeo.user, HOST)) == [
        f"juliet@{HOST}\tJ\tnone\tnone\ta",
        f"juliet@{HOST}\tJ\tnone\tnone\tb",
        f"tybalt@{HOST}\t\tnone\tout\t",
    ]
    facts = {row["jid"]: row for row in await ctl.json("get_roster", romeo.user, HOST)}
    assert facts[f"tybalt@{HOST}"] == {
        "jid": f"tybalt@{HOST}",
        "nick": "",
        "subscription": "none",
        "ask": "out",
        "group": "",
    }
    assert "does not exist" in await ctl.refused("get_roster", fresh_name(), HOST)


async def test_push_roster(server, ctl, romeo):
    template = server.program.directory / "template"
    template.write_text(
        f'%% The workers\n[{{"{romeo.user}", "{HOST}", "workers", "himself"}},\n'
        f' {{"bob", "{HOST}", "workers", "Bob \\"B\\""}}, % to be seen\n {{<<"eve">>, <<"{HOST}">>, <<"">>, <<"Eve">>}}].\n'
    )
    assert await ctl.text("push_roster", "template", romeo.user, HOST) == (
        f"Added 2 contacts to the roster of {romeo.bare}"
    )
    assert await roster_of(romeo) == {
        f"bob@{HOST}": ('Bob "B"', "both", ["workers"]),
        f"eve@{HOST}": ("Eve", "both", []),
    }
    assert await ctl.json("push_roster", str(template), romeo.user, HOST)
    template.write_text('[{"bob", "localhost", "workers", "Bob"}')
    assert "line 1" in await ctl.refused("push_roster", str(template), romeo.user, HOST)
    assert "can't be read" in await ctl.refused("push_roster", "/nonexistent", romeo.user, HOST)


async def test_process_rosteritems(ctl, romeo):
    domain = f"{fresh_name('d')}.example"
    for name, subscription in (("one", "both"), ("two", "none"), ("three", "none")):
        await ctl.text("add_rosteritem", romeo.user, HOST, name, domain, "", "", subscription)
    contacts = f".*@{re.escape(domain)}"
    found = await ctl.lines("process_rosteritems", "list", "any", "any", "any", contacts)
    assert found[0].startswith("There are ")
    assert sorted(found[1:]) == [f"Matches: {romeo.bare} {name}@{domain}" for name in ("one", "three", "two")]
    query = ("none:to", "none", romeo.bare, contacts)
    assert len(await ctl.json("process_rosteritems", "list", *query)) == 2
    assert len(await ctl.lines("process_rosteritems", "delete", *query)) == 3
    assert list(await roster_of(romeo)) == [f"one@{domain}"]
    assert await ctl.json("process_rosteritems", "list", *query) == []
    refused = ("process_rosteritems", "list")
    assert "SUBS" in await ctl.refused(*refused, "perhaps", "any", "any", "any", code=2)
    assert "ASKS" in await ctl.refused(*refused, "any", "perhaps", "any", "any", code=2)
    assert "regular expression" in await ctl.refused(*refused, "any", "any", "*", "any", code=2)
    assert "no action" in await ctl.refused("process_rosteritems", "count", "any", "any", "any", "any", code=2)


# ----------------------------------------------------------------------------------------------------- vCards


async def test_vcard_fields(ctl, romeo):
    assert await ctl.refused("get_vcard", romeo.user, HOST, "FN") == "Vcard not found"
    done = f"vCard of {romeo.bare} changed"
    assert await ctl.text("set_vcard", romeo.user, HOST, "FN", "Romeo <Montague>") == done
    assert await ctl.json("set_vcard", romeo.user, HOST, "NICKNAME", "Ro") == done
    assert await ctl.text("set_vcard", romeo.user, HOST, "NICKNAME", "Romy") == done
    assert await ctl.text("get_vcard", romeo.user, HOST, "FN") == "Romeo <Montague>"
    assert await ctl.json("get_vcard", romeo.user, HOST, "NICKNAME") == "Romy"
    assert await ctl.refused("get_vcard", romeo.user, HOST, "BDAY") == "Value not found in vcard"
    card = payload_of(await romeo.get(f"<vCard xmlns='{VCARD}'/>"))
    assert [(child.tag.rpartition("}")[2], child.text) for child in card] == [
        ("FN", "Romeo <Montague>"),
        ("NICKNAME", "Romy"),
    ]


async def test_vcard_fields_within_fields(ctl, romeo):
    name = (romeo.user, HOST, "N")
    assert await ctl.text("set_vcard2", *name, "FAMILY", "Montague")
    assert await ctl.json("set_vcard2", *name, "GIVEN", "Romeo")
    assert await ctl.text("get_vcard2", *name, "FAMILY") == "Montague"
    assert await ctl.json("get_vcard2", *name, "GIVEN") == "Romeo"
    organisation = (romeo.user, HOST, "ORG", "ORGUNIT")
    assert await ctl.text("set_vcard2_multi", *organisation, "Brawls;Balconies")
    assert await ctl.lines("get_vcard2_multi", *organisation) == ["Brawls", "Balconies"]
    assert await ctl.json("set_vcard2_multi", *organisation, "Tombs")
    assert await ctl.json("get_vcard2_multi", *organisation) == ["Tombs"]
    assert "Value not found" in await ctl.refused("get_vcard2", *name, "MIDDLE")


async def test_vcard_refusals(ctl, romeo):
    assert "does not exist" in await ctl.refused("get_vcard", fresh_name(), HOST, "FN")
    assert "does not exist" in await ctl.refused("set_vcard", fresh_name(), HOST, "FN", "x")
    assert "name of a field" in await ctl.refused("set_vcard", romeo.user, HOST, "F N", "x", code=2)
    await ctl.text("set_vcard", romeo.user, HOST, "FN", "Romeo")
    assert "name of a field" in await ctl.refused("get_vcard", romeo.user, HOST, "../x", code=2)
    assert "not base64" in await ctl.refused("set_vcard2", romeo.user, HOST, "PHOTO", "BINVAL", "?")


# ------------------------------------------------------------------------------------------------------ other


async def test_set_last(ctl, romeo):
    then = int(time.time()) - 3600
    assert await ctl.text("set_last", romeo.user, HOST, str(then), "Banished") == (
        f"Last activity for user {romeo.bare} is set as {then} with status Banished"
    )
    query = payload_of(await romeo.get(f"<query xmlns='{LAST}'/>", to=romeo.bare))
    assert 3600 <= int(query.get("seconds", "0")) < 3700
    assert query.text == "Banished"
    assert await ctl.json("set_last", romeo.user, HOST, "0", "")
    assert "TIMESTAMP" in await ctl.refused("set_last", romeo.user, HOST, "now", "", code=2)
    assert "does not exist" in await ctl.refused("set_last", fresh_name(), HOST, "0", "")


async def test_private_storage(ctl, romeo):
    stored = "<aa xmlns='bb'>Clu&amp;th<cc/></aa>"
    assert await ctl.text("private_set", romeo.user, HOST, stored) == f"Private storage of {romeo.bare} changed"
    assert await ctl.text("private_get", romeo.user, HOST, "aa", "bb") == stored
    assert await ctl.json("private_get", romeo.user, HOST, "aa", "bb") == stored
    assert await ctl.json("private_set", romeo.user, HOST, "<aa xmlns='bb'/>")
    assert await ctl.text("private_get", romeo.user, HOST, "aa", "bb") == "<aa xmlns='bb'/>"
    query = "<query xmlns='jabber:iq:private'><aa xmlns='bb'/></query>"
    assert len(payload_of(await romeo.get(query))[0]) == 0


async def test_private_storage_refusals(ctl, romeo):
    assert "incorrect" in await ctl.refused("private_set", romeo.user, HOST, "<aa")
    assert "namespace" in await ctl.refused("private_set", romeo.user, HOST, "<aa xmlns='jabber:iq:private'/>")
    assert "does not exist" in await ctl.refused("private_get", fresh_name(), HOST, "aa", "bb")
    assert "incorrect" in await ctl.refused("private_get", romeo.user, HOST, "a a", "bb")
    answer = await romeo.get("<query xmlns='jabber:iq:private'><aa xmlns='never'/></query>")
    assert answer.get("type") == "result" or condition_of(answer)
