"""Entity capabilities (XEP-0115): the server's own, and those of clients."""

from __future__ import annotations

import base64
import hashlib
from xml.etree import ElementTree as ET

from tests.support.client import befriend
from tests.support.matching import show
from tests.support.stanzas import payload_of

CAPS = "http://jabber.org/protocol/caps"
INFO = "http://jabber.org/protocol/disco#info"
FORMS = "jabber:x:data"


def verification_string(query: ET.Element) -> str:
    """The hash of a disco#info result (XEP-0115, 5.1), computed from the specification."""
    lang = "{http://www.w3.org/XML/1998/namespace}lang"
    identities = sorted(
        "/".join((node.get("category", ""), node.get("type", ""), node.get(lang, ""), node.get("name", "")))
        for node in query.findall(f"{{{INFO}}}identity")
    )
    features = sorted(node.get("var", "") for node in query.findall(f"{{{INFO}}}feature"))
    text = "".join(f"{line}<" for line in [*identities, *features])
    forms = []
    for form in query.findall(f"{{{FORMS}}}x"):
        fields = {
            field.get("var", ""): sorted(value.text or "" for value in field.findall(f"{{{FORMS}}}value"))
            for field in form
        }
        name = fields.pop("FORM_TYPE")[0]
        forms.append((name, sorted(fields.items())))
    for name, fields_ in sorted(forms):
        text += f"{name}<" + "".join(f"{var}<" + "".join(f"{value}<" for value in values) for var, values in fields_)
    return base64.b64encode(hashlib.sha1(text.encode(), usedforsecurity=False).digest()).decode()


async def test_the_servers_capabilities_are_in_its_features(server, account):
    """XEP-0115, 6.3: the server tells them in the stream features, and they hold."""
    romeo = await server.authenticated(account("romeo"))
    caps = romeo.feature(CAPS, "c")
    assert caps is not None
    assert caps.get("hash") == "sha-1"
    await romeo.bind()
    answer = await romeo.get(f"<query xmlns='{INFO}'/>", to="localhost")
    assert verification_string(payload_of(answer)) == caps.get("ver"), show(answer)


async def test_the_servers_capabilities_as_a_node(server, account):
    romeo = await server.authenticated(account("romeo"))
    caps = romeo.feature(CAPS, "c")
    await romeo.bind()
    node = f"{caps.get('node')}#{caps.get('ver')}"
    answer = await romeo.get(f"<query xmlns='{INFO}' node='{node}'/>", to="localhost")
    assert payload_of(answer).get("node") == node
    assert verification_string(payload_of(answer)) == caps.get("ver")


async def test_capabilities_hold_with_extension_forms(server_with, account):
    server = server_with({"contacts": {"abuse": ["mailto:abuse@localhost"], "admin": ["xmpp:b@localhost"]}})
    romeo = await server.authenticated(account("romeo"))
    caps = romeo.feature(CAPS, "c")
    await romeo.bind()
    answer = await romeo.get(f"<query xmlns='{INFO}'/>", to="localhost")
    assert verification_string(payload_of(answer)) == caps.get("ver")


async def test_clients_capabilities_are_passed_on(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    await juliet.available()
    await juliet.drained()
    caps = f"<c xmlns='{CAPS}' hash='sha-1' node='urn:example:client' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/>"
    await romeo.send(f"<presence>{caps}</presence>")
    await juliet.receives(f"<presence from='{romeo.full}' to='{juliet.bare}'>{caps}</presence>")
