"""Where commands are carried out, and how answers of several workers become one."""

from __future__ import annotations

import pytest

from monktalk.xmpp.admin import nodes
from monktalk.xmpp.admin.commands import COMMANDS
from monktalk.xmpp.admin.dispatch import _merged, _read, _write
from monktalk.xmpp.admin.registry import CommandError, Result, Scope, Table, UsageError
from monktalk.xmpp.cluster.bus import Peer
from monktalk.xmpp.core.calls import Replies
from tests.support.inproc import site

ONE, OTHER = (Peer(f"w{number}", f"node{number}", 0, "1.0", 0.0) for number in (1, 2))


def scope(name: str, *arguments: str) -> Scope:
    return COMMANDS[name].scope(arguments)


def test_scopes_of_commands():
    assert scope("register", "romeo", "host", "secret") is Scope.HERE
    assert scope("connected_users_number") is Scope.EVERYWHERE
    assert scope("set_loglevel", "debug") is Scope.NODE
    assert scope("stats", "onlineusers") is Scope.EVERYWHERE
    assert scope("stats", "onlineusersnode") is Scope.NODE
    assert scope("stats", "registeredusers") is Scope.HERE


def test_who_is_asked_by_user_is_named_by_the_first_arguments():
    at_home = [entry for entry in COMMANDS.values() if entry.scopes is Scope.HOME]
    assert {entry.name for entry in at_home} >= {"kick_session", "user_resources", "set_presence", "send_stanza_c2s"}
    assert {tuple(map(str, entry.parameters[:2])) for entry in at_home} == {("USER", "HOST")}


def merged(*outcomes: object, failures: tuple[str, ...] = ()) -> Result:
    peers = (ONE, OTHER)
    answers = [(peer, _write(outcome)) for peer, outcome in zip(peers, outcomes, strict=False)]
    return _merged(Replies(answers, [(OTHER, reason) for reason in failures]), ONE.name)


def test_answers_are_put_together():
    assert merged(2, 3).data == 5
    assert merged(["a"], ["b"]).text == "a\nb"
    table = merged(Table(("x",), [("a",)]), Table(("x",), [("b",)]))
    assert (table.text, table.data) == ("a\nb", [{"x": "a"}, {"x": "b"}])
    assert merged(Result("done", {"x": 1}), Result("done", {"x": 2})) == Result("done", {"x": 1}, 0, [])


def test_who_does_not_answer_is_named():
    result = merged(["a"], failures=("Worker 2 sleeps.",))
    assert (result.code, result.data, list(result.warnings)) == (1, ["a"], ["Worker 2 sleeps."])
    with pytest.raises(CommandError, match=r"Worker 2 sleeps\."):
        merged(failures=("Worker 2 sleeps.",))


def test_refusals_keep_their_kind():
    with pytest.raises(UsageError, match="no status"):
        _read({"kind": "error", "code": 2, "reason": "no status"})
    refusal = {"kind": "error", "code": 1, "reason": "no host"}
    with pytest.raises(CommandError, match="no host"):
        _merged(Replies([(ONE, refusal), (OTHER, _write(1))], []), ONE.name)
    result = _merged(Replies([(ONE, _write(1)), (OTHER, refusal)], []), ONE.name)
    assert (result.code, list(result.warnings)) == (1, ["mongooseim@node2 refuses: no host"])


def test_names_of_nodes():
    assert nodes.parse_node("mongooseim@one") == nodes.parse_node("one") == "one"
    for text in ("", "mongooseim@", "a@b"):
        with pytest.raises(UsageError):
            nodes.parse_node(text)


def test_versions_that_go_together():
    assert nodes.compatible("1.2.0", "1.9.1")
    assert not nodes.compatible("1.2.0", "2.0.0")


async def test_expected_nodes_are_remembered():
    async with site({}) as running:
        record = nodes.Nodes(running.server)
        await record.add("two", "1.0")
        await record.add("one", "1.0")
        assert await nodes.Nodes(running.server).names() == ["one", "two"]
        assert await record.remove("two")
        assert not await record.remove("two")
        assert await record.names() == ["one"]
