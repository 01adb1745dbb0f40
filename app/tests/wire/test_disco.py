"""Service discovery (XEP-0030, XEP-0128, XEP-0157)."""

from __future__ import annotations

import pytest

from tests.support.client import befriend
from tests.support.stanzas import condition_of, payload_of

INFO = "http://jabber.org/protocol/disco#info"
ITEMS = "http://jabber.org/protocol/disco#items"
FORMS = "jabber:x:data"

SERVER_FEATURES = {
    INFO,
    ITEMS,
    "urn:xmpp:ping",
    "urn:xmpp:time",
    "jabber:iq:version",
    "jabber:iq:last",
    "jabber:iq:private",
    "vcard-temp",
    "msgoffline",
    "http://jabber.org/protocol/commands",
    "http://jabber.org/protocol/caps",
}


def features(answer) -> set[str]:
    """The features in an answer."""
    return {node.get("var", "") for node in payload_of(answer) if node.tag == f"{{{INFO}}}feature"}


def identities(answer) -> set[tuple[str, str]]:
    """The identities in an answer: category and type."""
    query = payload_of(answer)
    return {(node.get("category", ""), node.get("type", "")) for node in query if node.tag == f"{{{INFO}}}identity"}


def form(answer, form_type: str) -> dict[str, list[str]] | None:
    """The form of that type in an answer, as a dictionary."""
    for node in payload_of(answer).findall(f"{{{FORMS}}}x"):
        fields = {
            field.get("var", ""): [value.text or "" for value in field.findall(f"{{{FORMS}}}value")] for field in node
        }
        if fields.get("FORM_TYPE") == [form_type]:
            assert node.get("type") == "result"
            return fields
    return None


async def test_the_server(server, account):
    romeo = await server.login(account("romeo"))
    answer = await romeo.get(f"<query xmlns='{INFO}'/>", to="localhost")
    assert ("server", "im") in identities(answer)
    assert features(answer) >= SERVER_FEATURES
    assert answer.get("from") == "localhost"


async def test_features_are_listed_once(server, account):
    """XEP-0115 computes hashes over them: one that comes twice makes the answer ill-formed."""
    romeo = await server.login(account("romeo"))
    answer = await romeo.get(f"<query xmlns='{INFO}'/>", to="localhost")
    listed = [node.get("var", "") for node in payload_of(answer) if node.tag == f"{{{INFO}}}feature"]
    assert len(listed) == len(set(listed))


async def test_items_of_the_server(server, account):
    romeo = await server.login(account("romeo"))
    answer = await romeo.get(f"<query xmlns='{ITEMS}'/>", to="localhost")
    assert payload_of(answer).tag == f"{{{ITEMS}}}query"


async def test_other_hosts_are_not_listed(server, account):
    romeo = await server.login(account("romeo"))
    answer = await romeo.get(f"<query xmlns='{ITEMS}'/>", to="localhost")
    assert "isolated.example" not in {node.get("jid") for node in payload_of(answer)}


async def test_the_own_account(server, account):
    romeo = await server.login(account("romeo"))
    for to in (None, romeo.bare):
        answer = await romeo.get(f"<query xmlns='{INFO}'/>", to=to)
        assert ("account", "registered") in identities(answer)
        assert INFO in features(answer)


async def test_the_own_resources(server, account):
    """XEP-0030, 8: who may see the presence may see the resources."""
    romeo = await server.online(account("romeo"))
    other = await server.online(romeo.account)
    answer = await romeo.get(f"<query xmlns='{ITEMS}'/>", to=romeo.bare)
    assert {node.get("jid") for node in payload_of(answer)} <= {romeo.full, other.full}


async def test_the_account_of_a_friend(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    answer = await romeo.get(f"<query xmlns='{INFO}'/>", to=juliet.bare)
    assert ("account", "registered") in identities(answer)


@pytest.mark.parametrize("namespace", [INFO, ITEMS])
async def test_strangers_learn_nothing(server, auth, account, namespace):
    """The answer about an account that is online, offline or absent is the same."""
    romeo = await server.login(account("romeo"))
    online = await server.online(account("juliet"))
    answers = []
    for jid in (online.bare, account("offline").jid, auth.absent().jid):
        answer = await romeo.get(f"<query xmlns='{namespace}'/>", to=jid)
        answers.append((answer.get("type"), condition_of(answer)))
    assert len(set(answers)) == 1
    assert answers[0] == ("error", "service-unavailable")
    await online.receives_nothing()


@pytest.mark.parametrize("namespace", [INFO, ITEMS])
@pytest.mark.parametrize("to", ["localhost", None])
async def test_unknown_node(server, account, namespace, to):
    romeo = await server.login(account("romeo"))
    answer = await romeo.get(f"<query xmlns='{namespace}' node='urn:example:nothing'/>", to=to)
    assert condition_of(answer) == "item-not-found"


async def test_a_full_jid_is_asked_itself(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.online(account("juliet"))
    await romeo.send(f"<iq type='get' id='1' to='{juliet.full}'><query xmlns='{INFO}'/></iq>")
    await juliet.receives(f"<iq type='get' id='1' from='{romeo.full}' to='{juliet.full}'><query xmlns='{INFO}'/></iq>")


async def test_contact_addresses(server_with, account):
    server = server_with(
        {"contacts": {"abuse": ["mailto:abuse@localhost"], "security": ["xmpp:a@localhost", "mailto:s@localhost"]}}
    )
    romeo = await server.login(account("romeo"))
    answer = await romeo.get(f"<query xmlns='{INFO}'/>", to="localhost")
    contacts = form(answer, "http://jabber.org/network/serverinfo")
    assert contacts is not None
    assert contacts["abuse-addresses"] == ["mailto:abuse@localhost"]
    assert contacts["security-addresses"] == ["xmpp:a@localhost", "mailto:s@localhost"]
    assert "sales-addresses" not in contacts


async def test_no_contact_form_without_contacts(server, account):
    romeo = await server.login(account("romeo"))
    answer = await romeo.get(f"<query xmlns='{INFO}'/>", to="localhost")
    assert form(answer, "http://jabber.org/network/serverinfo") is None
