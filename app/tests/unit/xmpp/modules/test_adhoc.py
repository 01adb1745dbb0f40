"""Ad-hoc commands (XEP-0050): who may, and how a command goes on from stage to stage."""

from __future__ import annotations

import contextlib

import pytest

from monktalk.common.jid import JID
from monktalk.xmpp.modules.adhoc import Access, Adhoc, CommandFailed, FormCommand, Outcome, Stage
from monktalk.xmpp.modules.disco import Disco
from monktalk.xmpp.protocol import forms
from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.adhoc import Note
from monktalk.xmpp.protocol.forms import Field, Submission
from monktalk.xmpp.storage.interfaces import StorageUnavailable
from tests.support.inproc import HOST, OTHER_HOST, condition, payload, site

TYPE = "urn:example:form"
MODULES = {"adhoc": Adhoc, "disco": Disco}


class Journey:
    """A command of three stages: where from, where to, sure?"""

    node = "journey"
    name = "Travel"
    access = Access.USERS

    def __init__(self) -> None:
        self.fails_with: Exception | None = None

    async def begin(self, requester: JID) -> Stage | Outcome:
        if self.fails_with is not None:
            raise self.fails_with
        return self._stage("from", self._to)

    def _stage(self, var: str, proceed, *, last: bool = False) -> Stage:
        return Stage(forms.form(TYPE, self.name, "Where?", [Field(var)]), TYPE, proceed, last)

    async def _to(self, submission: Submission) -> Stage | Outcome:
        start = submission.one("from")
        if start == "nowhere":
            return Outcome([Note("already there")])

        async def sure(goal: Submission) -> Stage | Outcome:
            async def go(_confirmed: Submission) -> Outcome:
                if self.fails_with is not None:
                    raise self.fails_with
                return Outcome([Note(f"from {start} to {goal.one('to')}")])

            return self._stage("sure", go, last=True)

        return self._stage("to", sure)


async def greet(requester: JID, submission: Submission) -> Outcome:
    return Outcome([Note(f"{requester.local} {submission.one('word')}")])


SECRET = FormCommand("secret", "Something for administrators", TYPE, greet)


@contextlib.asynccontextmanager
async def running(text: str = ""):
    async with site(MODULES, text) as found:
        found.host.administrators = frozenset({f"admin@{HOST}"})
        Adhoc.of(found.host).add(Journey())
        Adhoc.of(found.host).add(SECRET)
        yield found


def journey(server) -> Journey:
    command = Adhoc.of(server.host)._commands["journey"]
    assert isinstance(command, Journey)
    return command


@pytest.fixture
async def server():
    async with running() as found:
        yield found


def submit(**values: str) -> str:
    fields = "".join(f"<field var='{var}'><value>{value}</value></field>" for var, value in values.items())
    return f"<x xmlns='{ns.DATA_FORMS}' type='submit'>{fields}</x>"


class Run:
    """One command as a client carries it out."""

    def __init__(self, client, node: str = "journey", to: str | None = HOST) -> None:
        self.client, self.node, self.to = client, node, to
        self.session = ""

    async def send(self, action: str = "execute", inner: str = ""):
        session = f" sessionid='{self.session}'" if self.session else ""
        command = f"<command xmlns='{ns.ADHOC}' node='{self.node}' action='{action}'{session}>{inner}</command>"
        answer = await self.client.iq("set", command, to=self.to)
        if answer.get("type") == "result":
            self.session = payload(answer).get("sessionid", "")
        return answer

    async def step(self, action: str = "execute", inner: str = "") -> tuple[str | None, list[str], str]:
        """Status, actions (the default one first), and the field that is asked for or what there is to tell."""
        found = payload(await self.send(action, inner))
        actions = found.find(f"{{{ns.ADHOC}}}actions")
        offered = (
            [] if actions is None else [actions.get("execute", ""), *(node.tag.rpartition("}")[2] for node in actions)]
        )
        form = forms.find_form(found)
        shown = " ".join(f"{note.get('type')}: {note.text}" for note in found.findall(f"{{{ns.ADHOC}}}note"))
        if form is not None:
            shown = form.findall(f"{{{ns.DATA_FORMS}}}field")[-1].get("var", "")
        return found.get("status"), offered, shown


async def test_a_command_of_many_stages(server):
    run = Run(server.login("romeo"))
    assert await run.step() == ("executing", ["next", "next"], "from")
    assert await run.step("next", submit(**{"from": "Verona"})) == ("executing", ["next", "prev", "next"], "to")
    assert await run.step("execute", submit(to="Mantua")) == ("executing", ["complete", "prev", "complete"], "sure")
    assert await run.step("complete", submit()) == ("completed", [], "info: from Verona to Mantua")
    assert condition(await run.send("complete", submit())) == "bad-request/modify"


async def test_going_back(server):
    run = Run(server.login("romeo"))
    await run.step()
    await run.step("next", submit(**{"from": "Padua"}))
    assert await run.step("prev") == ("executing", ["next", "next"], "from")
    assert condition(await run.send("prev")) == "bad-request/modify"
    await run.step("next", submit(**{"from": "Verona"}))
    await run.step("next", submit(to="Mantua"))
    assert await run.step("prev") == ("executing", ["next", "prev", "next"], "to")
    await run.step("next", submit(to="Venice"))
    assert (await run.step("complete", submit()))[2] == "info: from Verona to Venice"


async def test_cancelling(server):
    run = Run(server.login("romeo"))
    await run.step()
    assert await run.step("cancel") == ("canceled", [], "")
    assert condition(await run.send("next", submit())) == "bad-request/modify"


async def test_ending_early(server):
    run = Run(server.login("romeo"))
    await run.step()
    assert await run.step("next", submit(**{"from": "nowhere"})) == ("completed", [], "info: already there")


@pytest.mark.parametrize("action", ["cancel", "prev"])
async def test_actions_of_a_command_that_has_not_begun(server, action):
    assert condition(await Run(server.login("romeo")).send(action)) == "bad-request/modify"


async def test_actions_that_a_stage_does_not_have(server):
    run = Run(server.login("romeo"))
    await run.step()
    assert condition(await run.send("complete", submit(**{"from": "Verona"}))) == "bad-request/modify"
    await run.step("next", submit(**{"from": "Verona"}))
    await run.step("next", submit(to="Mantua"))
    assert condition(await run.send("next", submit())) == "bad-request/modify"
    assert (await run.step("complete", submit()))[0] == "completed"


@pytest.mark.parametrize("inner", ["", "<x xmlns='jabber:x:data' type='form'/>", submit(FORM_TYPE="urn:other")])
async def test_a_wrong_form_may_be_sent_again(server, inner):
    run = Run(server.login("romeo"))
    await run.step()
    assert condition(await run.send("next", inner)) == "bad-request/modify"
    assert (await run.step("next", submit(**{"from": "Verona"})))[2] == "to"


async def test_failures(server):
    run = Run(server.login("romeo"))
    journey(server).fails_with = CommandFailed("the roads are closed")
    assert await run.step() == ("completed", [], "error: the roads are closed")
    journey(server).fails_with = None
    run = Run(run.client)
    await run.step()
    await run.step("next", submit(**{"from": "Verona"}))
    await run.step("next", submit(to="Mantua"))
    journey(server).fails_with = CommandFailed("the city is closed")
    assert await run.step("complete", submit()) == ("completed", [], "error: the city is closed")


async def test_what_is_only_away_for_a_moment_may_be_tried_again(server):
    run = Run(server.login("romeo"))
    await run.step()
    await run.step("next", submit(**{"from": "Verona"}))
    await run.step("next", submit(to="Mantua"))
    journey(server).fails_with = StorageUnavailable("gone")
    assert condition(await run.send("complete", submit())) == "resource-constraint/wait"
    journey(server).fails_with = None
    assert (await run.step("complete", submit()))[2] == "info: from Verona to Mantua"


async def test_a_field_with_too_many_values(server):
    run = Run(server.login("romeo"))
    await run.step()
    twice = f"<x xmlns='{ns.DATA_FORMS}' type='submit'><field var='from'><value>a</value><value>b</value></field></x>"
    assert (await run.step("next", twice))[2] == "error: the field from has several values"


# ------------------------------------------------------------------------------------------------------- who


async def test_commands_of_administrators(server):
    assert condition(await Run(server.login("romeo"), "secret").send()) == "forbidden/auth"
    assert await Run(server.login("admin"), "secret").step() == ("completed", [], "info: admin ")


async def test_rights_may_be_lost(server):
    Adhoc.of(server.host).remove(SECRET)
    asking = FormCommand("secret", "Secret", TYPE, greet, "Say it.", [Field("word")])
    Adhoc.of(server.host).add(asking)
    run = Run(server.login("admin"), "secret")
    assert (await run.step())[0] == "executing"
    server.host.administrators = frozenset()
    assert condition(await run.send("complete", submit(word="x"))) == "forbidden/auth"


async def test_users_of_other_hosts(server):
    assert condition(await Run(server.login("nurse", host=OTHER_HOST)).send()) == "forbidden/auth"


async def test_a_command_belongs_to_the_client_that_began_it(server):
    run = Run(server.login("romeo", "one"))
    await run.step()
    run.client = server.login("romeo", "other")
    assert condition(await run.send("next", submit(**{"from": "Verona"}))) == "bad-request/modify"


async def test_a_command_is_the_one_that_was_begun(server):
    run = Run(server.login("admin"))
    await run.step()
    run.node = "secret"
    assert condition(await run.send("complete", submit())) == "bad-request/modify"


async def test_commands_at_the_own_account(server):
    romeo = server.login("romeo")
    for to in (f"romeo@{HOST}", None):
        assert (await Run(romeo, to=to).step())[0] == "executing"
    assert condition(await Run(romeo, to=f"juliet@{HOST}").send()) == "service-unavailable/cancel"


async def test_there_is_no_such_command(server):
    assert condition(await Run(server.login("romeo"), "nothing").send()) == "item-not-found/cancel"


# ------------------------------------------------------------------------------------------------ discovery


async def items(client, to: str | None) -> list[tuple[str | None, str | None, str | None]]:
    answer = await client.iq("get", f"<query xmlns='{ns.DISCO_ITEMS}' node='{ns.ADHOC}'/>", to=to)
    return [(item.get("jid"), item.get("node"), item.get("name")) for item in payload(answer)]


async def test_commands_are_listed_for_those_who_may(server):
    romeo, admin = server.login("romeo"), server.login("admin")
    assert await items(romeo, HOST) == [(HOST, "journey", "Travel")]
    assert await items(admin, HOST) == [(HOST, "journey", "Travel"), (HOST, "secret", SECRET.name)]
    own = f"admin@{HOST}"
    assert await items(admin, own) == [(own, "journey", "Travel"), (own, "secret", SECRET.name)]
    assert await items(server.login("nurse", host=OTHER_HOST), HOST) == []


async def test_a_command_can_be_looked_up_by_those_who_may(server):
    query = f"<query xmlns='{ns.DISCO_INFO}' node='secret'/>"
    found = payload(await server.login("admin").iq("get", query, to=HOST))
    assert (found[0].get("category"), found[0].get("type")) == ("automation", "command-node")
    assert {node.get("var") for node in found[1:]} == {ns.ADHOC, ns.DATA_FORMS}
    assert condition(await server.login("romeo").iq("get", query, to=HOST)) == "item-not-found/cancel"
    query = f"<query xmlns='{ns.DISCO_INFO}' node='{ns.ADHOC}'/>"
    found = payload(await server.login("romeo", "two").iq("get", query, to=HOST))
    assert (found[0].get("category"), found[0].get("type")) == ("automation", "command-list")


async def test_host_and_accounts_say_that_there_are_commands(server):
    romeo = server.login("romeo")
    for to in (HOST, None):
        found = payload(await romeo.iq("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to=to))
        assert ns.ADHOC in {node.get("var") for node in found}


# --------------------------------------------------------------------------------------------------- limits


def under_way(server) -> int:
    return len(Adhoc.of(server.host)._executions)


async def test_a_form_that_waits_too_long():
    async with running("[modules.adhoc]\nsession_time = 60\n") as server:
        run = Run(server.login("romeo"))
        await run.step()
        server.clock.advance(50)
        await run.step("next", submit(**{"from": "Verona"}))
        server.clock.advance(50)
        await run.step("next", submit(to="Mantua"))
        server.clock.advance(61)
        assert condition(await run.send("complete", submit())) == "bad-request/modify"
        assert under_way(server) == 0


async def test_the_oldest_command_of_a_client_gives_way():
    async with running("[modules.adhoc]\nmax_sessions_per_client = 2\n") as server:
        romeo = server.login("romeo")
        runs = [Run(romeo) for _ in range(3)]
        for run in runs:
            await run.step()
        assert under_way(server) == 2
        assert condition(await runs[0].send("next", submit())) == "bad-request/modify"
        assert (await runs[1].step("next", submit()))[2] == "to"


async def test_the_oldest_command_of_all_gives_way():
    async with running("[modules.adhoc]\nmax_sessions = 2\n") as server:
        runs = [Run(server.login(name)) for name in ("romeo", "juliet", "nurse")]
        for run in runs:
            await run.step()
        assert under_way(server) == 2
        assert condition(await runs[0].send("next", submit())) == "bad-request/modify"
        assert (await runs[2].step("next", submit()))[2] == "to"


async def test_a_client_that_goes_leaves_nothing(server):
    romeo, juliet = server.login("romeo"), server.login("juliet")
    await Run(romeo).step()
    await Run(juliet).step()
    romeo.drop()
    await server.settled()
    assert under_way(server) == 1


async def test_a_command_that_is_taken_back_ends(server):
    run = Run(server.login("romeo"))
    await run.step()
    Adhoc.of(server.host).remove(journey(server))
    assert under_way(server) == 0
    assert condition(await run.send("next", submit())) == "item-not-found/cancel"


async def test_commands_have_nodes_of_their_own(server):
    with pytest.raises(ValueError, match="there is a command journey already"):
        Adhoc.of(server.host).add(journey(server))
