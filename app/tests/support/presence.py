"""Words for conversations about presence inside the test process (see :mod:`tests.support.inproc`)."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from monktalk.xmpp.modules.presence import Presence
from monktalk.xmpp.modules.roster import Item, Roster, RosterModule
from tests.support.inproc import HOST, OTHER_HOST, InprocClient, Site

MODULES = {"presence": Presence, "roster": RosterModule}
ROSTER = "<query xmlns='jabber:iq:roster'/>"
ISOLATED = f'[host."{OTHER_HOST}".sessions]\nisolated = true\n'


def rosters(site: Site, domain: str = HOST) -> RosterModule:
    """The roster module of a host."""
    return RosterModule.of(site.server.hosts[domain])


async def roster(site: Site, client: InprocClient) -> Roster:
    """The stored roster of the client's user."""
    return await rosters(site, client.jid.domain).get_roster(client.jid.local)


async def item(site: Site, client: InprocClient, contact: InprocClient | str) -> Item:
    """What the client's roster says about the contact."""
    jid = contact if isinstance(contact, str) else contact.jid.bare
    return (await roster(site, client)).items.get(jid, Item())


async def befriend(site: Site, one: InprocClient, other: InprocClient, subscription: str = "both") -> None:
    """Write a subscription into both rosters, as seen by ``one``."""
    mirrored = {"both": "both", "to": "from", "from": "to"}[subscription]
    await rosters(site, one.jid.domain).set_item(one.jid.local, other.jid.bare, subscription=subscription)
    await rosters(site, other.jid.domain).set_item(other.jid.local, one.jid.bare, subscription=mirrored)


async def interested(client: InprocClient) -> InprocClient:
    """Have the client ask for its roster."""
    await client.iq("get", ROSTER)
    return client


def seen(nodes: list[Element]) -> list[tuple[str | None, str | None]]:
    """Sender and type of each presence stanza."""
    return [(node.get("from"), node.get("type")) for node in nodes if node.tag.endswith("}presence")]


def story(nodes: list[Element]) -> list[str]:
    """Each stanza in a word: the type of presence (``available`` for none), or the state that a roster push tells."""
    words = []
    for node in nodes:
        if node.tag.endswith("}presence"):
            words.append(node.get("type", "available"))
        elif node.tag.endswith("}iq") and node.get("type") == "set":
            (pushed,) = node[0]
            words.append("+".join(filter(None, (f"push {pushed.get('subscription')}", pushed.get("ask")))))
        else:
            words.append(node.tag.rpartition("}")[2])
    return words
