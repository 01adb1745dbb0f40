"""vCards (XEP-0054) and their photos in presence (XEP-0153, XEP-0398)."""

from __future__ import annotations

import base64
import hashlib

import pytest

from monktalk.xmpp.core.administration import remove_account
from monktalk.xmpp.core.loader import reload_modules
from monktalk.xmpp.modules import vcard
from monktalk.xmpp.modules.presence import Presence
from monktalk.xmpp.modules.roster import RosterModule
from monktalk.xmpp.modules.vcard import CODEC, KEY, TABLE, Card, Vcard
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.xmltree import to_bytes
from tests.support.inproc import HOST, condition, configuration, payload, site

MODULES = {"presence": Presence, "roster": RosterModule, "vcard": Vcard}
LIMITS = "[modules.vcard]\nmax_size = 4096\nmax_photo_size = 1024\n"
ROMEO = f"romeo@{HOST}"
GET = f"<vCard xmlns='{ns.VCARD}'/>"
IMAGE = bytes(range(256))
HASH = hashlib.sha1(IMAGE, usedforsecurity=False).hexdigest()
UPDATE = f"{{{ns.VCARD_UPDATE}}}x"
PHOTO = f"{{{ns.VCARD_UPDATE}}}photo"


def card(name: str = "Romeo", image: bytes = b"") -> str:
    encoded = base64.encodebytes(image).decode()
    photo = f"<PHOTO><TYPE>image/png</TYPE><BINVAL>\n{encoded}</BINVAL></PHOTO>" if image else ""
    return f"<vCard xmlns='{ns.VCARD}'><FN>{name} &amp; Co</FN>{photo}</vCard>"


@pytest.fixture
async def server():
    async with site(MODULES, LIMITS) as running:
        yield running


@pytest.fixture
async def watcher(server):
    """Juliet, who sees Romeo's presence."""
    rosters = RosterModule.of(server.host)
    await rosters.set_item("romeo", f"juliet@{HOST}", subscription="from")
    await rosters.set_item("juliet", ROMEO, subscription="to")
    return await server.online("juliet")


def shown(watcher) -> list[str | None]:
    """What the presence that the watcher got says about photos: a hash, "" for none, None for nothing."""
    found = []
    for node in watcher.stanzas():
        assert node.tag == "{jabber:client}presence", to_bytes(node)
        updates = node.findall(UPDATE)
        assert len(updates) <= 1
        photo = updates[0].find(PHOTO) if updates else None
        found.append((photo.text or "") if photo is not None else None)
    return found


async def put(server, user: str, xml: str) -> None:
    """A card that was stored before the server was started."""
    store = server.storage.keyvalue(TABLE, CODEC, 1)
    await store.put(HOST, user, KEY, Card(xml.encode()), None)
    store.invalidate(HOST, user, KEY)


# -- cards -------------------------------------------------------------------------------------------------------------


async def test_a_card_that_was_set_comes_back_to_everybody(server):
    romeo = server.login("romeo")
    assert (await romeo.iq("set", card(image=IMAGE))).get("type") == "result"
    for client, to in ((romeo, None), (romeo, ROMEO), (server.login("paris"), ROMEO)):
        assert to_bytes(payload(await client.iq("get", GET, to=to))).decode() == card(image=IMAGE)


async def test_no_card_and_no_account_look_alike(server):
    paris, _ = server.login("paris"), await server.online("romeo")
    answers = set()
    for name in ("romeo", "nobody"):
        answer = await paris.iq("get", GET, to=f"{name}@{HOST}")
        assert condition(answer) == "item-not-found/cancel"
        answers.add(to_bytes(answer).replace(name.encode(), b"?").replace(answer.get("id").encode(), b"?"))
    assert len(answers) == 1
    assert condition(await paris.iq("get", GET)) == "item-not-found/cancel"


async def test_nobody_sets_the_card_of_others(server):
    paris, romeo = server.login("paris"), server.login("romeo")
    await romeo.iq("set", card())
    for name in ("romeo", "nobody"):
        assert condition(await paris.iq("set", card("Paris"), to=f"{name}@{HOST}")) == "forbidden/auth"
    assert to_bytes(payload(await romeo.iq("get", GET))).decode() == card()


@pytest.mark.parametrize(
    ("xml", "refusal"),
    [
        (card(image=bytes(1025)), "not-acceptable/modify"),
        (card("x" * 4096), "not-acceptable/modify"),
        (card(image=IMAGE).replace("BINVAL>\n", "BINVAL>***"), "bad-request/modify"),
        (card(image=IMAGE).replace("BINVAL>\n", "BINVAL>é"), "bad-request/modify"),
    ],
    ids=["photo too large", "card too large", "not base64", "not even ASCII"],
)
async def test_refused(server, xml, refusal):
    romeo = server.login("romeo")
    assert condition(await romeo.iq("set", xml)) == refusal
    assert condition(await romeo.iq("get", GET)) == "item-not-found/cancel"


async def test_storage_that_is_away(server):
    romeo = server.login("romeo")
    server.storage.set_available(False)
    assert condition(await romeo.iq("set", card())) == "resource-constraint/wait"
    assert condition(await romeo.iq("get", GET, to=f"juliet@{HOST}")) == "resource-constraint/wait"


async def test_the_card_goes_with_the_account(server):
    await server.login("romeo").iq("set", card())
    await remove_account(server.host, "romeo")
    assert condition(await server.login("romeo").iq("get", GET)) == "item-not-found/cancel"


# -- presence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["", f"<x xmlns='{ns.VCARD_UPDATE}'/>"], ids=["nothing said", "not ready yet"])
async def test_the_hash_is_added_where_the_client_says_nothing(server, watcher, inner):
    await put(server, "romeo", card(image=IMAGE))
    romeo = server.login("romeo")
    await romeo.available(f"<status>&lt;hi></status>{inner}")
    assert shown(watcher) == [HASH]
    own = [node for node in romeo.stanzas() if node.tag.endswith("}presence")]
    assert own == []


@pytest.mark.parametrize(("said", "seen"), [("", ""), ("0123456789abcdef0123456789abcdef01234567", HASH), (HASH, HASH)])
async def test_the_word_of_the_client(server, watcher, said, seen):
    """XEP-0398 section 4: that there is no photo is for the client to say; another hash than the right one is corrected."""
    await put(server, "romeo", card(image=IMAGE))
    await server.login("romeo").available(f"<x xmlns='{ns.VCARD_UPDATE}'><photo>{said}</photo></x>")
    assert shown(watcher) == [seen]


async def test_a_hash_that_can_not_be_checked_stands(server, watcher):
    await server.login("romeo").available(f"<x xmlns='{ns.VCARD_UPDATE}'><photo>{HASH}</photo></x>")
    assert shown(watcher) == [HASH]


@pytest.mark.parametrize("stored", [None, card(), card(image=IMAGE).replace("AAEC", "*"), "<"])
async def test_without_a_photo_presence_stays_as_it_is(server, watcher, stored):
    if stored is not None:
        await put(server, "romeo", stored)
    await server.login("romeo").available(f"<x xmlns='{ns.VCARD_UPDATE}'/>")
    assert shown(watcher) == [None]


async def test_directed_and_later_presence(server, watcher):
    await put(server, "romeo", card(image=IMAGE))
    romeo = await server.online("romeo")
    watcher.raw()
    romeo.send(f"<presence to='juliet@{HOST}'/>")
    romeo.send("<presence><show>away</show></presence>")
    await server.settled()
    assert shown(watcher) == [HASH, HASH]
    romeo.send("<presence type='unavailable'/>")
    await server.settled()
    assert shown(watcher) == [None]


async def test_a_new_photo_is_announced(server, watcher):
    romeo = await server.online("romeo")
    assert shown(watcher) == [None]
    await romeo.iq("set", card(image=IMAGE))
    assert shown(watcher) == [HASH]
    await romeo.iq("set", card("Montague", image=IMAGE))
    assert shown(watcher) == []
    await romeo.iq("set", card(image=IMAGE[:10]))
    assert shown(watcher) == [hashlib.sha1(IMAGE[:10], usedforsecurity=False).hexdigest()]
    await romeo.iq("set", card())
    assert shown(watcher) == [""]
    await romeo.iq("set", card(image=IMAGE))
    assert shown(watcher) == [HASH]


async def test_a_client_that_speaks_for_itself_is_not_corrected(server, watcher):
    romeo = server.login("romeo")
    await romeo.available(f"<x xmlns='{ns.VCARD_UPDATE}'><photo/></x>")
    assert shown(watcher) == [""]
    await romeo.iq("set", card(image=IMAGE))
    assert shown(watcher) == []


async def test_the_photo_is_decoded_once(server, watcher, monkeypatch):
    await put(server, "romeo", card(image=IMAGE))
    decoded = []
    original = vcard.photo_of

    def counted(node):
        decoded.append(node)
        return original(node)

    monkeypatch.setattr(vcard, "photo_of", counted)
    romeo = server.login("romeo")
    for _ in range(5):
        await romeo.available()
    assert shown(watcher) == [HASH] * 5
    assert len(decoded) == 1


async def test_presence_is_handled_in_order_while_the_card_is_fetched(server, watcher):
    await put(server, "romeo", card(image=IMAGE))
    romeo = server.login("romeo")
    romeo.send("<presence><status>1</status></presence><presence><status>2</status></presence>")
    romeo.send(f"<message to='juliet@{HOST}' type='chat'><body>3</body></message>")
    await server.settled()
    texts = ["".join(node.itertext()).removesuffix(HASH) for node in watcher.stanzas()]
    assert texts == ["1", "2", "3"]


async def test_storage_that_is_away_costs_the_photo_only(server, watcher):
    await RosterModule.of(server.host).get_roster("romeo")
    romeo = server.login("romeo")
    server.storage.set_available(False)
    await romeo.available()
    assert shown(watcher) == [None]
    assert server.host.available_sessions("romeo") == [romeo.session]


async def test_unloaded(server, watcher):
    await put(server, "romeo", card(image=IMAGE))
    server.host.apply(configuration(MODULES, "[modules.vcard]\nenabled = false\n"))
    await reload_modules(server.host, MODULES)
    await server.login("romeo").available()
    assert shown(watcher) == [None]
