"""What clients see when the authentication service or the database goes away under them, and comes back.

Nobody who is authenticated loses the stream, nobody gets in who may not, each answer is the right one, and everything
works again without a restart of the server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing

import psycopg2
import pytest

from tests.postgres import PostgresServer
from tests.support.accounts import Account, fresh_name
from tests.support.client import SASL, Client, befriend
from tests.support.matching import assert_matches, show
from tests.support.polling import eventually
from tests.support.roster import set_item
from tests.support.server import Server
from tests.support.stack import AuthService, XmppServer
from tests.support.stanzas import condition_of, refusal

pytestmark = pytest.mark.integration

TEMPORARY = f"<failure xmlns='{SASL}'><temporary-auth-failure/>{{more}}</failure>"
VCARD = "<vCard xmlns='vcard-temp'/>"


class Installation:
    """A server with an authentication service and a database of its own, all of which may be killed."""

    def __init__(self, auth: AuthService, program: XmppServer, database: PostgresServer) -> None:
        self.auth = auth
        self.program = program
        self.database = database

    def account(self, name: str) -> Account:
        """A new account in ``web_users``, which is in PostgreSQL here."""
        account = Account(fresh_name(name), "localhost", "sesame")
        with (
            closing(psycopg2.connect(self.program.database_url)) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(
                "insert into web_users (node, token, domain) values (%s, %s, %s)",
                (account.user, account.password, account.host),
            )
        return account


@pytest.fixture(scope="module")
def installation(postgres_victim: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    url = postgres_victim.create_database()
    auth = AuthService(tmp_path_factory.mktemp("auth"), url)
    auth.start()
    overrides = {"auth": {"timeout": "2 s", "cache_time": "1 s", "breaker_reset": "0.5 s"}}
    program = XmppServer(tmp_path_factory.mktemp("server"), auth, overrides, url)
    program.launch()
    yield Installation(auth, program, postgres_victim)
    program.stop()
    auth.program.stop()


@pytest.fixture
async def server(installation: Installation) -> AsyncIterator[Server]:
    opened = Server(installation.program)
    newcomer = installation.account("newcomer")
    await eventually(
        lambda: log_in_again(opened, newcomer),
        lambda tag: tag == f"{{{SASL}}}success",
        "the outage of the test before is over",
    )
    yield opened
    await opened.close()


@pytest.fixture
def account(installation: Installation) -> Callable[[str], Account]:
    return installation.account


class Outage:
    """``outage.begins()`` kills a program, ``outage.ends()`` starts it again."""

    def __init__(self, kill: Callable[[], None], start: Callable[[], None]) -> None:
        self._kill = kill
        self._start = start
        self._under_way = False

    def begins(self) -> None:
        """Kill the program as a crash does."""
        self._kill()
        self._under_way = True

    def ends(self) -> None:
        """Start the program again and wait until it answers."""
        if self._under_way:
            self._start()
            self._under_way = False


@pytest.fixture
def auth_outage(installation: Installation) -> Iterator[Outage]:
    outage = Outage(installation.auth.program.kill, installation.auth.start)
    yield outage
    outage.ends()


@pytest.fixture
def database_outage(installation: Installation) -> Iterator[Outage]:
    outage = Outage(installation.database.kill, installation.database.start)
    yield outage
    outage.ends()


async def chat(romeo: Client, juliet: Client, text: str) -> None:
    """A message goes from one to the other."""
    await romeo.send(f"<message to='{juliet.full}' type='chat'><body>{text}</body></message>")
    await juliet.receives(f"<message from='{romeo.full}' to='{juliet.full}' type='chat'><body>{text}</body></message>")


async def log_in_again(server: Server, account: Account, mechanism: str = "PLAIN") -> str:
    """One try to log in on a new stream; returns what it was answered."""
    client = await server.stream()
    answer = await client.sasl(account, mechanism)
    await client.wire.close()
    return answer.tag if answer.tag == f"{{{SASL}}}success" else answer[0].tag


# ------------------------------------------------------------------------------------------ the auth service


async def test_streams_live_on_without_the_auth_service(server, account, auth_outage):
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    auth_outage.begins()
    await chat(romeo, juliet, "still here")
    await set_item(romeo, "nurse@elsewhere.example")
    assert (await romeo.get(VCARD, to=juliet.bare)).get("type") in ("result", "error")
    await romeo.settled()
    await juliet.settled()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_logging_in_without_the_auth_service(server, account, auth_outage, mechanism):
    """The client is told to come back, on a stream that stays, and gets in as soon as the service is back."""
    romeo = account("romeo")
    auth_outage.begins()
    client = await server.stream()
    for _ in range(5):
        assert_matches(await client.sasl(romeo, mechanism), TEMPORARY)
    auth_outage.ends()
    answer = await eventually(
        lambda: client.sasl(romeo, mechanism), lambda answer: answer.tag == f"{{{SASL}}}success", "the client gets in"
    )
    assert answer.tag == f"{{{SASL}}}success"
    await client.open_stream()
    await client.bind()


async def test_nobody_gets_in_without_the_auth_service(server, account, auth_outage):
    romeo = account("romeo")
    await server.login(romeo)
    auth_outage.begins()
    client = await server.stream()
    answer = await client.sasl(romeo, password="wrong")
    assert answer.tag == f"{{{SASL}}}failure", show(answer)


async def test_many_failures_do_not_close_the_stream(server, account, auth_outage):
    """They are not the client's fault, and so no attempts of his."""
    client = await server.stream()
    auth_outage.begins()
    for _ in range(10):
        assert_matches(await client.sasl(account("romeo")), TEMPORARY)


async def test_messages_for_somebody_away_without_the_auth_service(server, account, auth_outage):
    """Whether there is such an account can't be found out: the sender is told to try later, and nothing is stored."""
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    auth_outage.begins()
    await romeo.send(f"<message to='{juliet.jid}' type='chat' id='m'><body>hi</body></message>")
    await romeo.receives(refusal("message", "resource-constraint", sender=juliet.jid, to=romeo.full, stanza_id="m"))
    auth_outage.ends()
    await eventually(
        lambda: log_in_again(server, juliet), lambda tag: tag == f"{{{SASL}}}success", "the service is used again"
    )
    online = await server.online(juliet)
    assert [node for node in await online.drained() if node.tag.endswith("}message")] == []


# ---------------------------------------------------------------------------------------------- the database


async def test_streams_live_on_without_the_database(server, account, database_outage):
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    database_outage.begins()
    await chat(romeo, juliet, "still here")
    await romeo.send("<presence><show>away</show></presence>")
    await romeo.receives(f"<presence from='{romeo.full}' to='{romeo.bare}'><show>away</show></presence>")
    await chat(juliet, romeo, "I see")


async def test_requests_without_the_database(server, account, database_outage):
    """What needs it is refused with resource-constraint (wait), and works again when it is back."""
    romeo, juliet = await server.online(account("romeo")), account("juliet")
    database_outage.begins()
    refused = {
        "roster": await set_item(romeo, "nurse@elsewhere.example"),
        "vCard of another": await romeo.get(VCARD, to=juliet.jid),
        "own vCard": await romeo.set("<vCard xmlns='vcard-temp'><FN>Romeo</FN></vCard>"),
        "private storage": await romeo.set("<query xmlns='jabber:iq:private'><a xmlns='urn:a'/></query>"),
    }
    for what, answer in refused.items():
        assert condition_of(answer) == "resource-constraint", what
        assert answer.find("{jabber:client}error").get("type") == "wait", what
    database_outage.ends()
    await eventually(
        lambda: set_item(romeo, "nurse@elsewhere.example"),
        lambda answer: answer.get("type") == "result",
        "the roster can be changed again",
    )
    assert (await romeo.get("<query xmlns='jabber:iq:roster'/>")).get("type") == "result"


async def test_messages_for_somebody_away_without_the_database(server, account, database_outage):
    """The sender is told that the message was not stored; one that is sent when the database is back is."""
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await befriend(romeo, juliet)
    recipient = juliet.account
    await juliet.end()
    database_outage.begins()
    await romeo.send(f"<message to='{recipient.jid}' type='chat' id='lost'><body>lost</body></message>")
    answer = await romeo.next(patience=30)
    assert answer.get("id") == "lost"
    assert condition_of(answer) == "resource-constraint"
    database_outage.ends()
    await eventually(
        lambda: set_item(romeo, "nurse@elsewhere.example"),
        lambda answer: answer.get("type") == "result",
        "the database is used again",
    )
    await romeo.send(f"<message to='{recipient.jid}' type='chat' id='kept'><body>kept</body></message>")
    await romeo.settled()
    await eventually(
        lambda: log_in_again(server, recipient), lambda tag: tag == f"{{{SASL}}}success", "logging in works again"
    )
    online = await server.online(recipient)
    stored = [node.get("id") for node in await online.drained() if node.tag.endswith("}message")]
    assert stored == ["kept"]


async def test_logging_in_without_the_database(server, account, database_outage):
    romeo = account("romeo")
    database_outage.begins()
    client = await server.stream()
    assert_matches(await client.sasl(romeo), TEMPORARY)
    database_outage.ends()
    await eventually(
        lambda: client.sasl(romeo), lambda answer: answer.tag == f"{{{SASL}}}success", "the client gets in"
    )


async def test_a_database_that_does_not_answer(installation, server, account):
    """Frozen instead of dead: connections stay open, and nothing comes back. The loop goes on, nobody waits for ever."""
    romeo, juliet = await server.online(account("romeo")), await server.online(account("juliet"))
    with installation.database.frozen():
        await romeo.send(
            "<iq type='set' id='slow'><query xmlns='jabber:iq:roster'><item jid='a@b.example'/></query></iq>"
        )
        await juliet.send(f"<message to='{romeo.full}' type='chat'><body>hi</body></message>")
        await romeo.receives(f"<message from='{juliet.full}' to='{romeo.full}' type='chat'><body>hi</body></message>")
        answer = await romeo.next(patience=60)
        assert answer.get("id") == "slow"
        assert condition_of(answer) == "resource-constraint"
    await eventually(
        lambda: set_item(romeo, "a@b.example"), lambda answer: answer.get("type") == "result", "it works again"
    )


async def test_the_server_stops_in_good_order_without_the_database(
    postgres_victim, tmp_path_factory, installation, database_outage
):
    url = postgres_victim.create_database()
    program = XmppServer(tmp_path_factory.mktemp("server"), installation.auth, {}, url)
    program.launch()
    database_outage.begins()
    assert program.stop() == 0
