"""Messages for users who are not here (XEP-0160)."""

from __future__ import annotations

import asyncio

import pytest

from monktalk.xmpp.core.administration import remove_account
from monktalk.xmpp.core.loader import reload_modules
from monktalk.xmpp.modules.disco import Disco
from monktalk.xmpp.modules.offline import Offline
from monktalk.xmpp.modules.offline import delivery as delivery_module
from monktalk.xmpp.modules.presence import Presence
from monktalk.xmpp.modules.roster import RosterModule
from monktalk.xmpp.modules.stanza_id import StanzaIds
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.xmltree import to_bytes
from tests.support.inproc import HOST, OTHER_HOST, condition, configuration, payload, site

MODULES = {"disco": Disco, "offline": Offline, "presence": Presence, "roster": RosterModule, "stanza_id": StanzaIds}
JULIET = f"juliet@{HOST}"
DELAY = f"{{{ns.DELAY}}}delay"


@pytest.fixture
async def server():
    async with site(MODULES, "[modules.offline]\nmax_messages = 20\n") as running:
        running.accounts().passwords["juliet"] = "secret"
        yield running


def chat(text: str, to: str = JULIET, inner: str = "") -> str:
    return f"<message to='{to}' type='chat' id='m{text}'><body>{text}</body>{inner}</message>"


def bodies(nodes) -> list[str]:
    """The bodies of the messages among the stanzas; errors are refused."""
    messages = [node for node in nodes if node.tag == "{jabber:client}message"]
    assert "error" not in [node.get("type") for node in messages]
    return [node.findtext("{jabber:client}body") or "" for node in messages]


async def come(server, user: str = "juliet", inner: str = ""):
    """A client that becomes available, and the messages it gets for that."""
    client = server.login(user)
    return client, bodies(await client.available(inner))


async def turn(rounds: int = 30) -> None:
    """Let the loop go round."""
    for _ in range(rounds):
        await asyncio.sleep(0)


async def waiting(server, user: str = "juliet"):
    """How many messages are stored."""
    return await server.storage.offline.count(HOST, user)


# -- storing -----------------------------------------------------------------------------------------------------------


async def test_messages_wait_and_come_once_in_order(server):
    romeo = server.login("romeo")
    for number in range(15):
        romeo.send(chat(str(number)))
    assert bodies(await romeo.arrived()) == []
    juliet, texts = await come(server)
    assert texts == [str(number) for number in range(15)]
    assert await waiting(server) == 0
    juliet.drop()
    assert (await come(server))[1] == []


async def test_the_stamp_tells_when_the_message_came(server):
    romeo = server.login("romeo")
    romeo.send(chat("hi"))
    await server.settled()
    server.clock.advance(3600)
    juliet = server.login("juliet")
    (message,) = [node for node in await juliet.available() if node.tag.endswith("}message")]
    delay = message.find(DELAY)
    assert (delay.get("from"), delay.get("stamp")) == (HOST, "2023-11-14T22:13:20Z")
    assert (message.get("from"), message.get("id")) == (romeo.jid.full, "mhi")


async def test_a_message_keeps_the_id_that_it_got(server):
    server.login("romeo").send(chat("hi"))
    await server.settled()
    (stored,) = await server.storage.offline.load(HOST, "juliet", 10)
    juliet = server.login("juliet")
    (message,) = [node for node in await juliet.available() if node.tag.endswith("}message")]
    mark = message.find(f"{{{ns.STANZA_ID}}}stanza-id")
    assert mark.get("by") == JULIET
    assert mark.get("id").encode() in stored.stanza


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        (chat("x"), True),
        (chat("x").replace("chat", "normal"), True),
        (chat("x").replace("chat", "unheard-of"), True),
        (chat("x", to=f"{JULIET}/gone"), True),
        (chat("x").replace("chat", "headline"), False),
        (chat("x", inner=f"<no-store xmlns='{ns.HINTS}'/>"), False),
        (chat("x", inner=f"<no-permanent-store xmlns='{ns.HINTS}'/>"), True),
        (f"<message to='{JULIET}' type='chat'><composing xmlns='{ns.CHAT_STATES}'/></message>", False),
        (f"<message to='{JULIET}' type='chat'><received xmlns='urn:xmpp:receipts' id='1'/></message>", True),
    ],
)
async def test_which_messages_wait(server, message, kept):
    romeo = server.login("romeo")
    romeo.send(message)
    assert await romeo.arrived() == [], "the sender is not told in either case"
    assert await waiting(server) == int(kept)


async def test_absent_accounts_get_nothing_and_nobody_is_told(server):
    romeo = server.login("romeo")
    for _ in range(3):
        romeo.send(chat("x", to=f"nobody@{HOST}"))
        assert await romeo.arrived() == []
    assert await waiting(server, "nobody") == 0


async def test_an_account_that_was_never_seen_here_is_looked_up_at_the_service(server):
    romeo = server.login("romeo")
    for number in range(5):
        romeo.send(chat(str(number)))
    await server.settled()
    assert server.accounts().asked == 1
    romeo.send(chat("5"))
    await server.settled()
    assert server.accounts().asked == 1
    assert (await come(server))[1] == ["0", "1", "2", "3", "4", "5"]


async def test_an_account_that_was_seen_is_not_looked_up(server):
    (await server.online("benvolio")).drop()
    server.login("romeo").send(chat("x", to=f"benvolio@{HOST}"))
    await server.settled()
    assert server.accounts().asked == 0
    assert await waiting(server, "benvolio") == 1


async def test_a_user_who_comes_while_his_account_is_looked_up(server):
    romeo = server.login("romeo")
    romeo.send(chat("1"))
    juliet = server.login("juliet")
    juliet.send("<presence/>")
    romeo.send(chat("2"))
    assert bodies(await juliet.arrived()) == ["1", "2"]
    assert await waiting(server) == 0


async def test_the_service_that_is_away(server):
    romeo = server.login("romeo")
    server.accounts().available = False
    romeo.send(chat("x"))
    (answer,) = await romeo.arrived()
    assert condition(answer) == "resource-constraint/wait"


@pytest.mark.parametrize("name", ["juliet", "nobody"])
async def test_storage_that_is_away(server, name):
    """Whoever the message is for: the answer must not tell which accounts exist."""
    romeo = server.login("romeo")
    romeo.send(chat("known"))
    romeo.send(chat("unknown", to=f"nobody@{HOST}"))
    await server.settled()
    server.storage.set_available(False)
    romeo.send(chat("x", to=f"{name}@{HOST}"))
    (answer,) = await romeo.arrived()
    assert (condition(answer), answer.get("id")) == ("resource-constraint/wait", "mx")


async def test_storage_that_breaks_down_while_a_message_is_being_stored(server, monkeypatch):
    romeo = server.login("romeo")
    romeo.send(chat("known"))
    await server.settled()
    server.storage.set_available(False)
    monkeypatch.setattr(server.storage, "healthy", lambda: True)
    romeo.send(chat("x"))
    (answer,) = await romeo.arrived()
    assert (condition(answer), answer.get("id")) == ("resource-constraint/wait", "mx")


async def test_a_full_mailbox_is_told_to_those_who_may_see_the_presence_only(server):
    await RosterModule.of(server.host).set_item("juliet", f"romeo@{HOST}", subscription="from")
    romeo, paris = server.login("romeo"), server.login("paris")
    for number in range(20):
        romeo.send(chat(str(number)))
    assert await romeo.arrived() == []
    paris.send(chat("20"))
    assert await paris.arrived() == []
    romeo.send(chat("21"))
    (answer,) = await romeo.arrived()
    assert (condition(answer), answer.get("id")) == ("service-unavailable/cancel", "m21")
    assert (await come(server))[1] == [str(number) for number in range(20)]


async def test_a_stranger_who_floods_a_full_mailbox_makes_no_tasks(server, monkeypatch):
    paris = server.login("paris")
    for number in range(20):
        paris.send(chat(str(number)))
    await RosterModule.of(server.host).get_roster("juliet")
    await server.settled()
    spawned, spawn = [], server.server.spawn

    def counted(work):
        spawned.append(work)
        return spawn(work)

    monkeypatch.setattr(server.server, "spawn", counted)
    for number in range(50):
        paris.send(chat(str(number)))
    assert await paris.arrived() == []
    assert spawned == []


async def test_no_task_for_each_message(server):
    romeo = server.login("romeo")
    romeo.send(chat("first"))
    await server.settled()
    before = len(server.server._tasks)
    for number in range(10):
        romeo.send(chat(str(number)))
    assert len(server.server._tasks) == before
    assert len(asyncio.all_tasks()) <= before + 2
    await server.settled()
    assert await waiting(server) == 11


async def test_forged_delay_stamps_are_taken_away(server):
    romeo, juliet = server.login("romeo"), await server.online("juliet")
    forged = f"<delay xmlns='{ns.DELAY}' from='{HOST}' stamp='2002-09-10T23:08:25Z'/>"
    honest = forged.replace(HOST, "room.example")
    romeo.send(chat("x", inner=forged + honest))
    (message,) = juliet.stanzas()
    assert [delay.get("from") for delay in message.findall(DELAY)] == ["room.example"]
    juliet.drop()
    romeo.send(chat("y", inner=forged))
    await server.settled()
    again = server.login("juliet")
    (stored,) = [node for node in await again.available() if node.tag.endswith("}message")]
    assert [delay.get("stamp") for delay in stored.findall(DELAY)] == ["2023-11-14T22:13:20Z"]


# -- acknowledgements --------------------------------------------------------------------------------------------------


def acknowledged(client) -> int:
    """Up to where the server has acknowledged what the client sent."""
    client.send(f"<r xmlns='{ns.STREAM_MANAGEMENT}'/>")
    answers = [node for node in client.stanzas() if node.tag.endswith("}a")]
    return int(answers[-1].get("h"))


async def test_a_message_is_acknowledged_when_it_is_durable(server):
    romeo = server.login("romeo")
    romeo.send(f"<enable xmlns='{ns.STREAM_MANAGEMENT}'/>")
    romeo.send(chat("first"))
    await server.settled()
    assert acknowledged(romeo) == 1
    romeo.send(chat("1") + chat("2"))
    assert acknowledged(romeo) == 1
    await server.settled()
    answers = [node for node in romeo.stanzas() if node.tag.endswith("}a")]
    assert [node.get("h") for node in answers] == ["3"], "unasked, since the client has asked already"


async def test_a_message_to_an_absent_account_is_acknowledged_all_the_same(server):
    romeo = server.login("romeo")
    romeo.send(f"<enable xmlns='{ns.STREAM_MANAGEMENT}'/>")
    romeo.send(chat("x", to=f"nobody@{HOST}"))
    await server.settled()
    assert acknowledged(romeo) == 1


# -- delivering --------------------------------------------------------------------------------------------------------


async def test_delivered_with_available_presence_of_a_priority_of_zero_or_more(server):
    server.login("romeo").send(chat("x"))
    await server.settled()
    juliet, texts = await come(server, inner="<priority>-1</priority>")
    assert texts == []
    assert bodies(await juliet.available("<show>away</show><priority>-5</priority>")) == []
    assert bodies(await juliet.available("<priority>0</priority>")) == ["x"]
    assert bodies(await juliet.available()) == []


async def test_a_malformed_priority_costs_no_message(server):
    server.login("romeo").send(chat("x"))
    await server.settled()
    juliet = server.login("juliet")
    (answer,) = await juliet.available("<priority>many</priority>")
    assert condition(answer) == "bad-request/modify"
    assert bodies(await juliet.available()) == ["x"]


async def test_several_resources_at_once_get_each_message_once(server):
    romeo = server.login("romeo")
    texts = [str(number) for number in range(15)]
    for text in texts:
        romeo.send(chat(text))
    await server.settled()
    clients = [server.login("juliet") for _ in range(5)]
    for client in clients:
        client.send("<presence/>")
    await server.settled()
    assert [bodies(client.stanzas()) for client in clients] == [texts, [], [], [], []]


async def test_newer_messages_come_behind_the_stored_ones(server):
    romeo = server.login("romeo")
    texts = [str(number) for number in range(10)]
    for text in texts:
        romeo.send(chat(text))
    await server.settled()
    juliet = server.login("juliet")
    juliet.send("<presence/>")
    for number in range(10, 15):
        romeo.send(chat(str(number)))
        await asyncio.sleep(0)
    assert bodies(await juliet.arrived()) == [str(number) for number in range(15)]


@pytest.fixture
def slow_appends(server, monkeypatch):
    """Messages take until the event is set to become durable."""
    release = asyncio.Event()
    append = server.storage.offline.append

    def append_later(*arguments):
        async def work():
            await release.wait()
            return await append(*arguments)

        return asyncio.ensure_future(work())

    monkeypatch.setattr(server.storage.offline, "append", append_later)
    return release


async def test_a_message_that_is_just_being_stored_is_waited_for(server, slow_appends):
    romeo = server.login("romeo")
    romeo.send(chat("1"))
    await turn()
    juliet = server.login("juliet")
    juliet.send("<presence/>")
    await turn()
    romeo.send(chat("2"))
    await turn()
    slow_appends.set()
    assert bodies(await juliet.arrived()) == ["1", "2"]
    assert await waiting(server) == 0


@pytest.mark.parametrize("durable", [True, False], ids=["stored", "being stored"])
async def test_a_message_that_comes_just_before_the_session_is_available(server, slow_appends, monkeypatch, durable):
    """Its roster has still to be read: no session takes the message, and the stored ones have been delivered."""
    rosters = RosterModule.of(server.host)
    read, get_roster = asyncio.Event(), rosters.get_roster

    async def slowly(user):
        await read.wait()
        return await get_roster(user)

    monkeypatch.setattr(rosters, "get_roster", slowly)
    romeo, juliet = server.login("romeo"), server.login("juliet")
    juliet.send("<presence/>")
    await turn()
    assert not server.host.available_sessions("juliet")
    romeo.send(chat("x"))
    if durable:
        slow_appends.set()
    await turn()
    read.set()
    await turn()
    slow_appends.set()
    assert bodies(await juliet.arrived()) == ["x"]
    assert await waiting(server) == 0


async def test_more_messages_than_are_read_at_once(server, monkeypatch):
    monkeypatch.setattr(delivery_module, "BATCH", 3)
    romeo = server.login("romeo")
    texts = [str(number) for number in range(10)]
    for text in texts:
        romeo.send(chat(text))
    await server.settled()
    assert (await come(server))[1] == texts
    assert await waiting(server) == 0


async def test_a_client_that_does_not_read_gets_no_more_than_it_takes(server, monkeypatch):
    """What it has not been given stays stored; without stream management also what it may not have got."""
    monkeypatch.setattr(delivery_module, "CHUNK_BYTES", 1000)
    romeo = server.login("romeo")
    for number in range(4):
        romeo.send(chat(str(number) + "x" * 900))
    await server.settled()
    juliet = server.login("juliet")
    juliet.link.reading.clear()
    juliet.send("<presence/>")
    await turn()
    assert bodies(juliet.stanzas()) == []
    juliet.link.reading.set()
    assert [text[0] for text in bodies(await juliet.arrived())] == ["0", "1", "2", "3"]


async def test_a_connection_that_breaks_loses_nothing(server, monkeypatch):
    monkeypatch.setattr(delivery_module, "CHUNK_BYTES", 1000)
    romeo = server.login("romeo")
    for number in range(3):
        romeo.send(chat(str(number) + "x" * 900))
    await server.settled()
    juliet = server.login("juliet")
    write = juliet.link.write

    def break_down(data: bytes) -> None:
        """The first message fills the connection; then it breaks."""
        write(data)
        if data.startswith(b"<message"):
            juliet.link.reading.clear()
            asyncio.get_running_loop().call_soon(juliet.drop)
            asyncio.get_running_loop().call_soon(juliet.link.reading.set)

    monkeypatch.setattr(juliet.link, "write", break_down)
    juliet.send("<presence/>")
    await server.settled()
    assert not server.host.user_sessions("juliet")
    _, texts = await come(server)
    assert [text[0] for text in texts] == ["0", "1", "2"], "the first one comes again: it may not have arrived"


def enable(client):
    """Switch stream management on; returns the token for resumption."""
    client.send(f"<enable xmlns='{ns.STREAM_MANAGEMENT}' resume='true'/>")
    (enabled,) = client.stanzas()
    return enabled.get("id", "")


async def test_messages_in_the_queue_of_a_session_that_ends_are_stored_again(server):
    romeo = server.login("romeo")
    for number in range(3):
        romeo.send(chat(str(number)))
    await server.settled()
    server.clock.advance(60)
    juliet = server.login("juliet")
    enable(juliet)
    assert bodies(await juliet.available()) == ["0", "1", "2"]
    assert await waiting(server) == 0
    session = juliet.session
    juliet.drop()
    session.end("not resumed in time")
    await server.settled()
    again = server.login("juliet")
    messages = [node for node in await again.available() if node.tag.endswith("}message")]
    assert bodies(messages) == ["0", "1", "2"]
    stamps = [[delay.get("stamp") for delay in node.findall(DELAY)] for node in messages]
    assert stamps == [["2023-11-14T22:13:20Z"]] * 3, "when they came first"
    assert len(messages[0].findall(f"{{{ns.STANZA_ID}}}stanza-id")) == 1


async def test_a_session_is_not_given_more_than_its_queue_holds():
    async with site(MODULES, "[stream_management]\nqueue = 10\nrequest_after = 3\n") as server:
        server.accounts().passwords["juliet"] = "secret"
        romeo = server.login("romeo")
        for number in range(12):
            romeo.send(chat(str(number)))
        await server.settled()
        juliet = server.login("juliet")
        enable(juliet)
        juliet.send("<presence/>")
        await turn()
        assert bodies(juliet.stanzas()) == ["0", "1", "2", "3", "4"]
        assert await waiting(server) == 7
        juliet.send(f"<a xmlns='{ns.STREAM_MANAGEMENT}' h='5'/>")
        await turn()
        assert bodies(juliet.stanzas()) == ["5", "6", "7", "8", "9"]
        juliet.send(f"<a xmlns='{ns.STREAM_MANAGEMENT}' h='10'/>")
        assert bodies(await juliet.arrived()) == ["10", "11"]
        assert await waiting(server) == 0


async def test_a_delivery_goes_on_when_the_session_is_resumed():
    async with site(MODULES, "[stream_management]\nqueue = 10\nrequest_after = 3\n") as server:
        server.accounts().passwords["juliet"] = "secret"
        romeo = server.login("romeo")
        for number in range(8):
            romeo.send(chat(str(number)))
        await server.settled()
        juliet = server.login("juliet")
        token = enable(juliet)
        juliet.send("<presence/>")
        await turn()
        assert bodies(juliet.stanzas()) == ["0", "1", "2", "3", "4"]
        juliet.drop()
        await server.settled()
        assert await waiting(server) == 3
        again = server.connect()
        again.open()
        again.stream.authenticated("juliet", b"")
        again.open()
        again.raw()
        again.send(f"<resume xmlns='{ns.STREAM_MANAGEMENT}' previd='{token}' h='5'/>")
        assert bodies(await again.arrived()) == ["5", "6", "7"]
        assert await waiting(server) == 0


async def test_what_a_session_can_not_take_goes_to_another_one():
    async with site(MODULES, "[stream_management]\nqueue = 10\nrequest_after = 3\n") as server:
        server.accounts().passwords["juliet"] = "secret"
        romeo = server.login("romeo")
        for number in range(8):
            romeo.send(chat(str(number)))
        await server.settled()
        phone, laptop = server.login("juliet"), server.login("juliet")
        enable(phone)
        phone.send("<presence/>")
        await turn()
        laptop.send("<presence/>")
        await turn()
        phone.drop()
        await server.settled()
        assert bodies(laptop.stanzas()) == ["5", "6", "7"]
        assert await waiting(server) == 0


async def test_storage_that_fails_after_the_delivery_repeats_nothing_now(server, monkeypatch, caplog):
    server.login("romeo").send(chat("x"))
    await server.settled()
    juliet = server.login("juliet")
    write = juliet.link.write

    def fail(data: bytes) -> None:
        write(data)
        if data.startswith(b"<message"):
            server.storage.set_available(False)

    monkeypatch.setattr(juliet.link, "write", fail)
    await RosterModule.of(server.host).get_roster("juliet")
    assert bodies(await juliet.available()) == ["x"]
    assert "offline_delivery_failed" in caplog.text
    assert server.host.available_sessions("juliet") == [juliet.session]


# -- deleting ----------------------------------------------------------------------------------------------------------


async def test_messages_expire():
    async with site(MODULES, "[modules.offline]\nmax_age = '1 h'\n") as server:
        server.accounts().passwords["juliet"] = "secret"
        romeo = server.login("romeo")
        romeo.send(chat("old"))
        await server.settled()
        server.clock.advance(3000)
        romeo.send(chat("new"))
        await server.settled()
        server.clock.advance(1000)
        module = server.host.modules["offline"]
        assert isinstance(module, Offline)
        await module.purge()
        assert await server.storage.offline.delete_older(HOST, server.clock.now() - 3600) == 0, "purged already"
        assert (await come(server))[1] == ["new"]


async def test_they_go_with_the_account(server):
    server.login("romeo").send(chat("x"))
    await server.settled()
    await remove_account(server.host, "juliet")
    assert await waiting(server) == 0
    romeo = server.login("romeo")
    romeo.send(chat("y"))
    assert await romeo.arrived() == []
    assert await waiting(server) == 0


async def test_hosts_are_apart(server):
    server.accounts(OTHER_HOST).passwords["juliet"] = "secret"
    server.login("romeo").send(chat("x", to=f"juliet@{OTHER_HOST}"))
    await server.settled()
    assert (await come(server))[1] == []
    other = await server.online("juliet", host=OTHER_HOST)
    assert other.host == OTHER_HOST
    assert await server.storage.offline.count(OTHER_HOST, "juliet") == 0


async def test_disco_tells_of_it_until_it_is_unloaded(server):
    romeo = server.login("romeo")
    query = f"<query xmlns='{ns.DISCO_INFO}'/>"
    assert b"msgoffline" in to_bytes(payload(await romeo.iq("get", query, to=HOST)))
    server.host.apply(configuration(MODULES, "[modules.offline]\nenabled = false\n"))
    await reload_modules(server.host, MODULES)
    assert b"msgoffline" not in to_bytes(payload(await romeo.iq("get", query, to=HOST)))
    romeo.send(chat("x"))
    (answer,) = await romeo.arrived()
    assert condition(answer) == "service-unavailable/cancel"
