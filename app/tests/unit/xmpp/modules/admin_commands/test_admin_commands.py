"""Service administration (XEP-0133): what the wire tests do not reach."""

from __future__ import annotations

import pytest

from monktalk.xmpp.modules.adhoc import Adhoc
from monktalk.xmpp.modules.admin_commands import AdminCommands
from monktalk.xmpp.modules.presence import Presence
from monktalk.xmpp.modules.roster import RosterModule
from monktalk.xmpp.modules.vcard import Vcard
from monktalk.xmpp.protocol import forms
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.xmltree import to_bytes
from tests.support.inproc import HOST, OTHER_HOST, payload, site

MODULES = {
    "adhoc": Adhoc,
    "admin_commands": AdminCommands,
    "presence": Presence,
    "roster": RosterModule,
    "vcard": Vcard,
}
MULTI = ("jid-multi", "text-multi")


@pytest.fixture
async def server():
    async with site(MODULES) as found:
        found.host.administrators = frozenset({f"admin@{HOST}"})
        yield found


class Admin:
    """The administrator, who fills in forms as Smack's tests do: only fields that the form has."""

    def __init__(self, server) -> None:
        self.client = server.login("admin")

    async def send(self, node: str, inner: str = "", *, action: str = "execute", session: str = ""):
        shown = f"node='{ns.ADMIN}#{node}' action='{action}'" + (f" sessionid='{session}'" if session else "")
        command = f"<command xmlns='{ns.ADHOC}' {shown}>{inner}</command>"
        return payload(await self.client.iq("set", command, to=f"admin@{HOST}"))

    async def run(self, node: str, **values: str | list[str]):
        """Fill in the form and return the last answer."""
        begun = await self.send(node)
        assert begun.get("status") == "executing", to_bytes(begun)
        form = forms.find_form(begun)
        assert form is not None
        fields = {field.get("var"): field for field in form.findall(f"{{{ns.DATA_FORMS}}}field")}
        filled = ""
        for var, value in {"FORM_TYPE": ns.ADMIN, **values}.items():
            texts = [value] if isinstance(value, str) else value
            assert len(texts) == 1 or fields[var].get("type") in MULTI
            assert var in fields
            filled += f"<field var='{var}'>{''.join(f'<value>{text}</value>' for text in texts)}</field>"
        submission = f"<x xmlns='{ns.DATA_FORMS}' type='submit'>{filled}</x>"
        return await self.send(node, submission, action="complete", session=begun.get("sessionid", ""))


@pytest.fixture
async def admin(server) -> Admin:
    return Admin(server)


def notes(command) -> list[tuple[str | None, str | None]]:
    assert command.get("status") == "completed"
    return [(note.get("type"), note.text) for note in command.findall(f"{{{ns.ADHOC}}}note")]


def error(command) -> str:
    """The only note, which is an error."""
    found = notes(command)
    assert [kind for kind, _ in found] == ["error"], found
    return found[0][1] or ""


def values(command, var: str) -> list[str]:
    assert [kind for kind, _ in notes(command) if kind == "error"] == []
    form = forms.find_form(command)
    assert form is not None
    assert form.get("type") == "result"
    fields = {field.get("var"): field for field in form.findall(f"{{{ns.DATA_FORMS}}}field")}
    assert fields["FORM_TYPE"][0].text == ns.ADMIN
    return [value.text or "" for value in fields[var]]


async def number(admin: Admin, kind: str) -> int:
    return int(values(await admin.send(f"get-{kind}-users-num"), f"{kind}usersnum")[0])


# --------------------------------------------------------------------------------------------------- accounts


async def test_a_new_user_gets_a_card(server, admin):
    done = await admin.run(
        "add-user",
        accountjid=f"juliet@{HOST}",
        password="x",
        **{"password-verify": "x", "email": "j@capulet.example", "given_name": "Juliet", "surname": "Capulet"},
    )
    assert notes(done) == [("info", f"juliet@{HOST} was added")]
    card = payload(await server.login("juliet").iq("get", f"<vCard xmlns='{ns.VCARD}'/>"))
    assert to_bytes(card).decode() == (
        "<vCard xmlns='vcard-temp'><FN>Juliet Capulet</FN><N><FAMILY>Capulet</FAMILY><GIVEN>Juliet</GIVEN></N>"
        "<EMAIL><USERID>j@capulet.example</USERID></EMAIL></vCard>"
    )


@pytest.mark.parametrize(
    ("jid", "passwords", "reason"),
    [
        (f"juliet@{OTHER_HOST}", ("x", "x"), f"is not an account of {HOST}"),
        ("juliet@elsewhere.example", ("x", "x"), f"is not an account of {HOST}"),
        ("juliet@invalid@host", ("x", "x"), "is not a Jabber ID"),
        (HOST, ("x", "x"), "is not the Jabber ID of an account"),
        ("", ("x", "x"), "is not a Jabber ID"),
        (f"juliet@{HOST}", ("x", "y"), "not the same"),
        (f"juliet@{HOST}", ("x", ""), "not the same"),
        (f"juliet@{HOST}", ("", ""), "password is empty"),
        (f"admin@{HOST}", ("x", "x"), "exists already"),
    ],
)
async def test_users_that_are_not_added(server, admin, jid, passwords, reason):
    before = dict(server.accounts().passwords)
    password, again = passwords
    answer = await admin.run("add-user", accountjid=jid, password=password, **{"password-verify": again})
    assert reason in error(answer)
    assert server.accounts().passwords == before


async def test_the_service_is_away(server, admin):
    server.accounts().available = False
    answer = await admin.run("add-user", accountjid=f"j@{HOST}", password="x", **{"password-verify": "x"})
    assert "authentication service can't be reached" in error(answer)
    answer = await admin.run("delete-user", accountjids=f"romeo@{HOST}")
    assert "authentication service can't be reached" in error(answer)


async def test_deleting_some_that_are_not_there(server, admin):
    server.accounts().passwords["romeo"] = "x"
    answer = await admin.run("delete-user", accountjids=[f"romeo@{HOST}/orchard", f"nobody@{HOST}", f"romeo@{HOST}"])
    assert notes(answer) == [("info", "Users deleted: 1"), ("error", "there is no account nobody")]
    assert "romeo" not in server.accounts().passwords


async def test_one_wrong_name_and_nothing_is_done(server, admin):
    server.accounts().passwords["romeo"] = "x"
    assert "is not an account" in error(
        await admin.run("delete-user", accountjids=[f"romeo@{HOST}", "romeo@elsewhere.example"])
    )
    assert "romeo" in server.accounts().passwords
    assert error(await admin.run("delete-user", accountjids="")) == "name at least one account"
    many = [f"u{index}@{HOST}" for index in range(1001)]
    assert error(await admin.run("delete-user", accountjids=many)) == "name 1000 accounts at most"


@pytest.mark.parametrize("node", ["disable-user", "reenable-user"])
async def test_nobody_is_disabled_or_enabled(admin, node):
    assert error(await admin.run(node, accountjids=f"nobody@{HOST}")) == "there is no account nobody"
    assert "is not an account" in error(await admin.run(node, accountjids="romeo@elsewhere.example"))


async def test_a_disabled_user_is_gone_but_keeps_his_roster(server, admin):
    romeo = server.login("romeo")
    await RosterModule.of(server.host).set_item("romeo", f"juliet@{HOST}", name="J")
    assert notes(await admin.run("disable-user", accountjids=f"romeo@{HOST}")) == [("info", "Users disabled: 1")]
    assert romeo.link.closed
    assert await number(admin, "disabled") == 1
    assert values(await admin.run("get-disabled-users-list"), "disableduserjids") == [f"romeo@{HOST}"]
    form = forms.find_form(await admin.run("get-user-roster", accountjids=f"romeo@{HOST}"))
    assert form is not None
    roster = form.find(f"{{{ns.ROSTER}}}query")
    assert roster is not None
    assert [(item.get("jid"), item.get("name")) for item in roster] == [(f"juliet@{HOST}", "J")]
    assert notes(await admin.run("reenable-user", accountjids=f"romeo@{HOST}")) == [("info", "Users enabled: 1")]
    assert await number(admin, "disabled") == 0


async def test_ending_sessions(server, admin):
    one, other, third = server.login("romeo", "one"), server.login("romeo", "other"), server.login("juliet")
    answer = await admin.run("end-user-session", accountjids=f"romeo@{HOST}/one")
    assert notes(answer) == [("info", "Sessions ended: 1")]
    assert (one.link.closed, other.link.closed) == (True, False)
    await admin.run("end-user-session", accountjids=[f"romeo@{HOST}", f"juliet@{HOST}"])
    assert (other.link.closed, third.link.closed) == (True, True)


async def test_changing_a_password(server, admin):
    server.accounts().passwords["romeo"] = "old"
    assert notes(await admin.run("change-user-password", accountjid=f"romeo@{HOST}", password="new")) == [
        ("info", f"The password of romeo@{HOST} was changed")
    ]
    assert server.accounts().passwords["romeo"] == "new"
    assert "no account" in error(await admin.run("change-user-password", accountjid=f"x@{HOST}", password="new"))
    assert "is empty" in error(await admin.run("change-user-password", accountjid=f"romeo@{HOST}", password=""))


async def test_announcements_need_a_text(admin):
    assert error(await admin.run("announce", announcement=["", " "])) == "the announcement is empty"


# ------------------------------------------------------------------------------------------------- statistics


async def test_who_is_online_active_idle(server, admin):
    await server.online("romeo")
    await server.online("juliet", inner="<show>away</show>")
    both = await server.online("nurse", "phone", "<show>xa</show>")
    await server.online("nurse", "desk", "<show>dnd</show>")
    server.login("tybalt")
    await server.online("romeo", host=OTHER_HOST)
    assert await number(admin, "online") == 5
    assert await number(admin, "active") == 2
    assert await number(admin, "idle") == 3
    listed = {
        kind: await admin.run(node) for kind, node in (("active", "get-active-users"), ("idle", "get-idle-users"))
    }
    assert set(values(listed["active"], "activeuserjids")) == {f"romeo@{HOST}", f"nurse@{HOST}"}
    assert set(values(listed["idle"], "idleuserjids")) == {f"juliet@{HOST}", f"tybalt@{HOST}", f"admin@{HOST}"}
    online = values(await admin.run("get-online-users-list"), "onlineuserjids")
    assert len(online) == len(set(online)) == 5
    both.drop()


async def test_who_is_registered(server, admin):
    for name in ("c", "a", "b"):
        server.login(name)
    assert await number(admin, "registered") == 4
    everybody = [f"{name}@{HOST}" for name in ("a", "admin", "b", "c")]
    for limit in ("none", "", "25"):
        answer = await admin.run("get-registered-users-list", max_items=limit)
        assert values(answer, "registereduserjids") == everybody
    answer = await admin.run("get-registered-users-list", max_items="2")
    assert values(answer, "registereduserjids") == everybody[:2]
    assert notes(answer) == [("warn", "2 of 4 users are listed")]
    assert "is a number" in error(await admin.run("get-registered-users-list", max_items="many"))


async def test_last_logins(server, admin):
    server.accounts().passwords["never"] = "x"
    server.login("romeo")
    answer = await admin.run("get-user-lastlogin", accountjids=f"romeo@{HOST}")
    assert values(answer, "lastlogin") == ["2023-11-14T22:13:20Z"]
    answer = await admin.run("get-user-lastlogin", accountjids=[f"never@{HOST}", f"romeo@{HOST}"])
    assert values(answer, "lastlogin") == ["never", "2023-11-14T22:13:20Z"]
    assert "no account" in error(await admin.run("get-user-lastlogin", accountjids=f"nobody@{HOST}"))


async def test_statistics_of_a_user(server, admin):
    server.login("romeo", "one", peer="192.0.2.7")
    server.login("romeo", "other", peer="192.0.2.7")
    await RosterModule.of(server.host).set_item("romeo", f"juliet@{HOST}")
    answer = await admin.run("user-stats", accountjids=f"romeo@{HOST}")
    assert values(answer, "rostersize") == ["1"]
    assert values(answer, "ipaddresses") == ["192.0.2.7"]
    assert values(answer, "onlineresources") == ["one", "other"]
    assert "one account" in error(await admin.run("user-stats", accountjids=[f"romeo@{HOST}", f"admin@{HOST}"]))
    assert "no account" in error(await admin.run("user-stats", accountjids=f"nobody@{HOST}"))


async def test_without_rosters(server, admin):
    server.host.unregister(server.host.modules["roster"])
    answer = await admin.run("user-stats", accountjids=f"admin@{HOST}")
    assert values(answer, "onlineresources") == [admin.client.jid.resource]
    assert "can't be read" in error(await admin.run("get-user-roster", accountjids=f"admin@{HOST}"))


async def test_who_did_what_is_logged_without_passwords(admin, caplog):
    caplog.set_level("INFO")
    await admin.run("add-user", accountjid=f"j@{HOST}", password="pass-word", **{"password-verify": "pass-word"})
    logged = "\n".join(f"{record.msg} {getattr(record, 'fields', '')}" for record in caplog.records)
    assert "admin_command" in logged
    assert f"j@{HOST}" in logged
    assert "pass-word" not in logged


async def test_the_commands_go_with_the_module(server, admin):
    module = server.host.modules["admin_commands"]
    await module.stop()
    assert Adhoc.of(server.host)._commands == {}
    await module.start()
    assert await number(admin, "online") == 1
