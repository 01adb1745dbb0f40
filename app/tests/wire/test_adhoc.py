"""Ad-hoc commands (XEP-0050) and service administration (XEP-0133)."""

from __future__ import annotations

from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pytest

from tests.support.accounts import Account, fresh_name
from tests.support.client import SASL, Client
from tests.support.matching import assert_matches, show
from tests.support.server import Server
from tests.support.stanzas import condition_of, payload_of

COMMANDS = "http://jabber.org/protocol/commands"
ADMIN = "http://jabber.org/protocol/admin"
FORMS = "jabber:x:data"
ITEMS = "http://jabber.org/protocol/disco#items"
INFO = "http://jabber.org/protocol/disco#info"

NODES = [
    "add-user",
    "delete-user",
    "disable-user",
    "reenable-user",
    "change-user-password",
    "end-user-session",
    "get-online-users-list",
    "announce",
]


def form_fields(command: ET.Element) -> dict[str, ET.Element]:
    """The fields of the form in a command's answer, by variable."""
    form = command.find(f"{{{FORMS}}}x")
    assert form is not None, show(command)
    return {field.get("var", ""): field for field in form.findall(f"{{{FORMS}}}field")}


def values(command: ET.Element, var: str) -> list[str]:
    """The values of one field."""
    return [value.text or "" for value in form_fields(command)[var].findall(f"{{{FORMS}}}value")]


def submission(**fields: str | list[str]) -> str:
    """A filled-in form."""
    shown = "".join(
        f"<field var='{var}'>"
        + "".join(f"<value>{escape(value)}</value>" for value in ([content] if isinstance(content, str) else content))
        + "</field>"
        for var, content in {"FORM_TYPE": ADMIN, **fields}.items()
    )
    return f"<x xmlns='{FORMS}' type='submit'>{shown}</x>"


def command(node: str, inner: str = "", *, action: str = "execute", session: str = "") -> str:
    """A command request."""
    shown = f" sessionid='{session}'" if session else ""
    return f"<command xmlns='{COMMANDS}' node='{ADMIN}#{node}' action='{action}'{shown}>{inner}</command>"


async def run(client: Client, node: str, **fields: str | list[str]) -> ET.Element:
    """Run a command through its form and return the last answer, an IQ."""
    answer = await client.set(command(node), to=client.host)
    form = payload_of(answer)
    assert form.get("status") == "executing", show(answer)
    session = form.get("sessionid", "")
    assert session
    return await client.set(command(node, submission(**fields), action="complete", session=session), to=client.host)


def completed(answer: ET.Element) -> ET.Element:
    """The command has succeeded."""
    result = payload_of(answer)
    assert result.get("status") == "completed", show(answer)
    notes = [note for note in result.findall(f"{{{COMMANDS}}}note") if note.get("type") == "error"]
    assert notes == [], show(answer)
    return result


def failed(answer: ET.Element) -> None:
    """The command was refused, by an error or by a note of type error."""
    if answer.get("type") == "result":
        notes = payload_of(answer).findall(f"{{{COMMANDS}}}note")
        assert [note.get("type") for note in notes] == ["error"], show(answer)


@pytest.fixture
async def admin(server: Server) -> Client:
    """The administrator of localhost, logged in."""
    return await server.login(server.administrator)


# ------------------------------------------------------------------------------------------------- discovery


async def test_the_server_announces_commands(admin):
    answer = await admin.get(f"<query xmlns='{INFO}'/>", to="localhost")
    assert COMMANDS in {node.get("var") for node in payload_of(answer)}


async def test_commands_are_listed_for_administrators(admin):
    answer = await admin.get(f"<query xmlns='{ITEMS}' node='{COMMANDS}'/>", to="localhost")
    listed = {node.get("node"): node for node in payload_of(answer)}
    assert {f"{ADMIN}#{name}" for name in NODES} <= set(listed)
    assert all(node.get("jid") == "localhost" for node in listed.values())
    assert all(node.get("name") for node in listed.values())


async def test_commands_can_be_looked_up(admin):
    answer = await admin.get(f"<query xmlns='{INFO}' node='{ADMIN}#add-user'/>", to="localhost")
    found = {(node.get("category"), node.get("type")) for node in payload_of(answer)}
    assert ("automation", "command-node") in found


async def test_others_see_no_commands(server, account):
    romeo = await server.login(account("romeo"))
    answer = await romeo.get(f"<query xmlns='{ITEMS}' node='{COMMANDS}'/>", to="localhost")
    assert answer.get("type") == "error" or len(payload_of(answer)) == 0


@pytest.mark.parametrize("name", NODES)
async def test_others_are_refused(server, account, name):
    romeo = await server.login(account("romeo"))
    assert condition_of(await romeo.set(command(name), to="localhost")) == "forbidden"


async def test_an_administrator_rules_his_own_host_only(server, admin):
    assert condition_of(await admin.set(command("add-user"), to="other.example")) == "forbidden"


async def test_the_same_name_in_another_host_is_nobody(server, auth):
    namesake = Account(auth.administrator.user, "other.example", fresh_name("pw"))
    auth.insert(namesake)
    client = await server.login(namesake)
    assert condition_of(await client.set(command("add-user"), to="localhost")) == "forbidden"


async def test_unknown_command(admin):
    assert condition_of(await admin.set(command("make-coffee"), to="localhost")) == "item-not-found"


async def test_unknown_session(admin):
    answer = await admin.set(command("add-user", submission(), action="complete", session="unknown"), to="localhost")
    assert condition_of(answer) == "bad-request"


async def test_a_session_belongs_to_who_began_it(server, admin, account):
    form = payload_of(await admin.set(command("add-user"), to="localhost"))
    romeo = await server.login(account("romeo"))
    wanted = Account(fresh_name("planted"), "localhost", "sesame")
    answer = await romeo.set(
        command(
            "add-user",
            submission(accountjid=wanted.jid, password="sesame", **{"password-verify": "sesame"}),
            action="complete",
            session=form.get("sessionid", ""),
        ),
        to="localhost",
    )
    assert condition_of(answer) == "forbidden"


async def test_cancel(admin):
    form = payload_of(await admin.set(command("add-user"), to="localhost"))
    session = form.get("sessionid", "")
    answer = await admin.set(command("add-user", action="cancel", session=session), to="localhost")
    assert payload_of(answer).get("status") == "canceled"
    answer = await admin.set(command("add-user", submission(), action="complete", session=session), to="localhost")
    assert condition_of(answer) == "bad-request"


# --------------------------------------------------------------------------------------------------- commands


async def test_adding_a_user(server, admin):
    new = Account(fresh_name("new"), "localhost", "open sesame")
    form = form_fields(payload_of(await admin.set(command("add-user"), to="localhost")))
    assert {"FORM_TYPE", "accountjid", "password", "password-verify"} <= set(form)
    assert form["accountjid"].get("type") == "jid-single"
    assert form["password"].get("type") == "text-private"
    completed(
        await run(admin, "add-user", accountjid=new.jid, password=new.password, **{"password-verify": new.password})
    )
    for mechanism in ("PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"):
        await server.login(new, mechanism=mechanism)
    assert new.password not in server.log


async def test_adding_a_user_who_is_there(server, admin, account):
    romeo = account("romeo")
    failed(await run(admin, "add-user", accountjid=romeo.jid, password="x", **{"password-verify": "x"}))
    await server.login(romeo)


async def test_adding_with_two_passwords(server, admin, auth):
    new = auth.absent("new")
    failed(await run(admin, "add-user", accountjid=new.jid, password="one", **{"password-verify": "other"}))
    client = await server.stream()
    assert (await client.sasl(new, password="one")).tag == f"{{{SASL}}}failure"


async def test_adding_a_user_of_another_host(server, admin, auth):
    new = auth.absent("new", host="other.example")
    failed(await run(admin, "add-user", accountjid=new.jid, password="x", **{"password-verify": "x"}))
    client = await server.stream(host="other.example")
    assert (await client.sasl(new, password="x")).tag == f"{{{SASL}}}failure"


async def test_deleting_users(server, admin, account):
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    completed(await run(admin, "delete-user", accountjids=[romeo.account.jid, juliet.jid]))
    await romeo.stream_error("not-authorized")
    for gone in (romeo.account, juliet):
        client = await server.stream()
        assert (await client.sasl(gone)).tag == f"{{{SASL}}}failure"


async def test_disabling_and_reenabling_users(server, admin, account):
    romeo = await server.login(account("romeo"))
    completed(await run(admin, "disable-user", accountjids=[romeo.account.jid]))
    await romeo.stream_error()
    client = await server.stream()
    answer = await client.sasl(romeo.account)
    assert_matches(answer, f"<failure xmlns='{SASL}'><account-disabled/>{{more}}</failure>")
    answer = await client.sasl(romeo.account, password="wrong")
    assert_matches(answer, f"<failure xmlns='{SASL}'><not-authorized/>{{more}}</failure>")
    completed(await run(admin, "reenable-user", accountjids=[romeo.account.jid]))
    await server.login(romeo.account)


async def test_changing_a_password(server, admin, account):
    romeo = account("romeo")
    await server.login(romeo)
    completed(await run(admin, "change-user-password", accountjid=romeo.jid, password="changed"))
    client = await server.stream()
    assert (await client.sasl(romeo)).tag == f"{{{SASL}}}failure"
    assert (await client.sasl(romeo, password="changed")).tag == f"{{{SASL}}}success"


async def test_changing_the_password_of_nobody(admin, auth):
    failed(await run(admin, "change-user-password", accountjid=auth.absent().jid, password="changed"))


async def test_ending_sessions(server, admin, account):
    romeo = account("romeo")
    one, other = await server.login(romeo, "one"), await server.login(romeo, "other")
    completed(await run(admin, "end-user-session", accountjids=[one.full]))
    await one.stream_error()
    await other.settled()
    completed(await run(admin, "end-user-session", accountjids=[romeo.jid]))
    await other.stream_error()
    await server.login(romeo)


async def test_online_users(server, admin, account):
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    elsewhere = await server.online(account("nurse", host="other.example"))
    result = completed(await run(admin, "get-online-users-list", max_items="none"))
    online = values(result, "onlineuserjids")
    assert romeo.bare in online
    assert juliet.bare in online
    assert elsewhere.bare not in online


async def test_announcement(server, admin, account):
    romeo = await server.online(account("romeo"))
    elsewhere = await server.online(account("nurse", host="other.example"))
    completed(await run(admin, "announce", subject="Tonight", announcement=["A feast", "at Capulet's"]))
    message = await romeo.next()
    assert message.get("from") == "localhost"
    assert message.findtext("{jabber:client}subject") == "Tonight"
    assert message.findtext("{jabber:client}body") == "A feast\nat Capulet's"
    await elsewhere.receives_nothing()
