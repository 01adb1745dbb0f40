"""Row 17: whether an account exists, or is online, is nobody's business (RFC 6121, 4.3 and 11; XEP-0012, 0030, 0054).

The answers to strangers are the same, in bytes and within the noise of timing.
"""

from __future__ import annotations

import statistics
import time
from xml.etree import ElementTree as ET

import pytest

from tests.support.client import Client
from tests.support.matching import show

STANZAS = {
    **{
        f"{kind} {name} to the {address} address": f"<iq type='{kind}' id='1' to='{{{address}}}'>{payload}</iq>"
        for kind in ("get", "set")
        for address in ("bare", "full")
        for name, payload in {
            "vCard": "<vCard xmlns='vcard-temp'/>",
            "roster": "<query xmlns='jabber:iq:roster'/>",
            "roster item": "<query xmlns='jabber:iq:roster'><item jid='a@b.example'/></query>",
            "private storage": "<query xmlns='jabber:iq:private'><a xmlns='b'/></query>",
            "last activity": "<query xmlns='jabber:iq:last'/>",
            "info": "<query xmlns='http://jabber.org/protocol/disco#info'/>",
            "items": "<query xmlns='http://jabber.org/protocol/disco#items'/>",
            "ping": "<ping xmlns='urn:xmpp:ping'/>",
            "time": "<time xmlns='urn:xmpp:time'/>",
            "version": "<query xmlns='jabber:iq:version'/>",
            "registration": "<query xmlns='jabber:iq:register'/>",
            "command": "<command xmlns='http://jabber.org/protocol/commands' node='x'/>",
            "something unknown": "<x xmlns='urn:example:x'/>",
        }.items()
    },
    **{
        f"message of type {kind} to the {address} address": (
            f"<message type='{kind}' id='1' to='{{{address}}}'><body>x</body></message>"
        )
        for kind in ("normal", "chat", "groupchat", "headline", "error", "unheard-of")
        for address in ("bare", "full")
    },
    **{
        f"presence {kind} to the {address} address": f"<presence type='{kind}' id='1' to='{{{address}}}'/>"
        for kind in ("probe", "subscribe", "unsubscribe", "subscribed", "unsubscribed", "unavailable")
        for address in ("bare", "full")
    },
    "presence to the bare address": "<presence to='{bare}'/>",
    "presence to the full address": "<presence to='{full}'/>",
}


async def answers(client: Client, stanza: str, jid: str) -> list[str]:
    """What comes back for a stanza, with the address that was asked for made anonymous."""
    await client.send(stanza.replace("{bare}", jid).replace("{full}", f"{jid}/tomb"))
    heard = await client.drained()
    return sorted(
        ET.canonicalize(show(node)).replace(jid, "JID").replace(client.bare, "ME").replace(client.resource, "RESOURCE")
        for node in heard
    )


@pytest.mark.parametrize("stanza", STANZAS.values(), ids=STANZAS.keys())
async def test_answers_are_the_same(server, auth, account, stanza):
    """For an account that is offline, one that is online (and has no such resource), and one that does not exist."""
    asker = account("tybalt")
    online = await server.online(account("juliet"))
    seen = {}
    for situation, jid in {
        "online": online.bare,
        "offline": account("juliet").jid,
        "absent": auth.absent("juliet").jid,
    }.items():
        stranger = await server.login(asker)
        seen[situation] = await answers(stranger, stanza, jid)
    assert seen["offline"] == seen["absent"]
    assert seen["online"] == seen["absent"]


TIMED = {
    "message": "<message type='chat' to='{jid}'><body>x</body></message>",
    "vCard": "<iq type='get' id='1' to='{jid}'><vCard xmlns='vcard-temp'/></iq>",
    "probe": "<presence type='probe' to='{jid}'/>",
    "info": "<iq type='get' id='1' to='{jid}'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    "roster": "<iq type='get' id='1' to='{jid}'><query xmlns='jabber:iq:roster'/></iq>",
}


@pytest.mark.parametrize("repeated", [False, True], ids=["first time", "again"])
@pytest.mark.parametrize("stanza", TIMED.values(), ids=TIMED.keys())
async def test_answers_take_the_same_time(server, auth, account, stanza, repeated):
    """The time until the server has handled the stanza and what comes behind it, for accounts that exist and that don't."""
    stranger = await server.login(account("tybalt"))
    times: dict[str, list[float]] = {"offline": [], "absent": []}
    for _ in range(30):
        for situation, jid in (("offline", account("juliet").jid), ("absent", auth.absent("juliet").jid)):
            if repeated:
                await stranger.send(stanza.replace("{jid}", jid))
                await stranger.answered()
            began = time.perf_counter()
            await stranger.send(stanza.replace("{jid}", jid))
            await stranger.answered()
            times[situation].append(time.perf_counter() - began)
    # The first quartile: noise of the machine only ever adds time.
    offline, absent = (statistics.quantiles(values, n=4)[0] for values in times.values())
    assert abs(offline - absent) < 0.001 + 0.5 * min(offline, absent), f"{offline:.4f} s against {absent:.4f} s"
