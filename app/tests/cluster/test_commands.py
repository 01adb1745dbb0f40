"""mongooseimctl on a cluster: whichever worker is asked, sessions of all of them are seen and ended."""

from __future__ import annotations

import pytest

from tests.support.client import SASL
from tests.support.ctl import Ctl

pytestmark = pytest.mark.integration

HOST = "localhost"


@pytest.fixture(params=[0, 1], ids=["asked-at-home", "asked-elsewhere"])
def ctl(programs, request) -> Ctl:
    """Users of these tests have their home at the first worker."""
    return Ctl(programs.workers[request.param].config)


@pytest.fixture
async def romeo(cluster, account):
    return await cluster.at(0).online(account("romeo"), "orchard", priority=5)


async def test_all_sessions_are_listed_with_their_nodes(cluster, account, ctl, romeo):
    juliet = await cluster.at(1).online(account("juliet"), "balcony")
    lines = await ctl.lines("connected_users")
    assert {romeo.full, juliet.full} <= set(lines)
    assert await ctl.json("connected_users_number") == len(lines)
    assert await ctl.text("connected_users_number") == str(len(lines))
    for command in (("connected_users_info",), ("connected_users_vhost", HOST)):
        nodes = {row["jid"]: row["node"] for row in await ctl.json(*command)}
        assert (nodes[romeo.full], nodes[juliet.full]) == ("mongooseim@node0", "mongooseim@node1")
    assert await ctl.json("stats", "onlineusers") == len(lines)
    assert await ctl.json("stats_host", "onlineusers", HOST) <= len(lines)
    of_node = [await Ctl(worker.config).json("stats", "onlineusersnode") for worker in cluster.cluster.workers]
    assert sum(of_node) == len(lines)


async def test_status_lists(cluster, account, ctl, romeo):
    juliet = await cluster.at(1).online(account("juliet"), "balcony", inner="<show>dnd</show>")
    for command in (("status_list", "all"), ("status_list_host", HOST, "all")):
        assert {romeo.user, juliet.user} <= {row["user"] for row in await ctl.json(*command)}
    assert juliet.user in {row["user"] for row in await ctl.json("status_list", "dnd")}
    assert "no status" in await ctl.refused("status_list", "asleep", code=2)
    assert "not served" in await ctl.refused("status_list_host", "elsewhere.example", "all")


async def test_sessions_of_a_user_wherever_they_are_connected(cluster, ctl, romeo):
    other = await cluster.at(1).online(romeo.account, "street")
    assert await ctl.lines("user_resources", romeo.user, HOST) == ["orchard", "street"]
    assert await ctl.json("num_resources", romeo.user, HOST) == 2
    assert await ctl.text("resource_num", romeo.user, HOST, "2") == "street"
    assert "Wrong resource number" in await ctl.refused("resource_num", romeo.user, HOST, "3")
    rows = await ctl.json("user_sessions_info", romeo.user, HOST)
    assert [row["jid"] for row in rows] == [romeo.full, other.full]
    assert await ctl.json("user_resources", "nobody", HOST) == []
    assert "not served" in await ctl.refused("user_resources", "nobody", "elsewhere.example")


async def test_ending_one_session(cluster, ctl, romeo):
    other = await cluster.at(1).online(romeo.account, "street")
    assert await ctl.text("kick_session", romeo.user, HOST, "street", "go home") == f"Session {other.full} ended"
    error = await other.stream_error("policy-violation")
    assert "go home" in "".join(error.itertext())
    await romeo.settled()
    assert "is not connected" in await ctl.refused("kick_session", romeo.user, HOST, "street", "x")


async def test_acting_for_a_session(cluster, account, ctl, romeo):
    juliet = await cluster.at(1).online(account("juliet"))
    message = f"<message to='{juliet.bare}' type='chat'><body>by your leave</body></message>"
    assert await ctl.text("send_stanza_c2s", romeo.user, HOST, "orchard", message) == "Stanza has been sent"
    await juliet.receives(
        f"<message from='{romeo.full}' to='{juliet.bare}' type='chat'><body>by your leave</body>{{more}}</message>"
    )
    assert await ctl.text("set_presence", romeo.user, HOST, "orchard", "available", "dnd", "fighting", "-3")
    [row] = await ctl.json("user_sessions_info", romeo.user, HOST)
    assert row["priority"] == -3
    assert "no show" in await ctl.refused(
        "set_presence", romeo.user, HOST, "orchard", "available", "sleepy", "", "", code=2
    )


async def test_messages_and_rosters(cluster, account, ctl, romeo):
    await romeo.roster()
    assert await ctl.text("add_rosteritem", romeo.user, HOST, "juliet", HOST, "Juliet", "Capulets", "both")
    push = await romeo.next()
    assert push.find("{jabber:iq:roster}query/{jabber:iq:roster}item").get("name") == "Juliet"
    assert await ctl.text("send_message_chat", HOST, romeo.bare, "hi") == f"Message sent to {romeo.bare}"
    assert (await romeo.next()).findtext("{jabber:client}body") == "hi"


async def refused_everywhere(cluster, account, condition: str) -> None:
    """Nobody can log in as the account any more, at any worker."""
    for number in range(len(cluster.cluster.workers)):
        client = await cluster.at(number).stream()
        answer = await client.sasl(account)
        assert (answer.tag, answer[0].tag) == (f"{{{SASL}}}failure", f"{{{SASL}}}{condition}")


async def test_a_banned_account_is_out_everywhere(cluster, ctl, romeo):
    other = await cluster.at(1).online(romeo.account, "street")
    late = await cluster.at(0).authenticated(romeo.account)
    relayed = await cluster.at(1).authenticated(romeo.account)
    assert "successfully banned" in await ctl.text("ban_account", romeo.user, HOST, "noise")
    for client in (romeo, other):
        assert "noise" in "".join((await client.stream_error("policy-violation")).itertext())
    for client in (late, relayed):
        await client.stream_error("not-authorized")
    await refused_everywhere(cluster, romeo.account, "account-disabled")
    assert await ctl.text("unban_account", romeo.user, HOST)
    for number in (0, 1):
        await cluster.at(number).login(romeo.account)


async def test_a_removed_account_is_out_everywhere(cluster, ctl, romeo):
    other = await cluster.at(1).online(romeo.account, "street")
    relayed = await cluster.at(1).authenticated(romeo.account)
    assert "successfully unregistered" in await ctl.text("unregister", romeo.user, HOST)
    for client in (romeo, other, relayed):
        await client.stream_error("not-authorized")
    await refused_everywhere(cluster, romeo.account, "not-authorized")
    assert "does not exist" in await ctl.refused("unregister", romeo.user, HOST)
    for worker in cluster.cluster.workers:
        assert "does not exist" in await Ctl(worker.config).refused("check_account", romeo.user, HOST)


async def test_a_new_password_is_known_everywhere(cluster, ctl, romeo):
    await cluster.at(1).login(romeo.account, "street")
    assert await ctl.text("change_password", romeo.user, HOST, "changed")
    await romeo.settled()
    await refused_everywhere(cluster, romeo.account, "not-authorized")
    for number in (0, 1):
        client = await cluster.at(number).stream()
        assert (await client.sasl(romeo.account, password="changed")).tag == f"{{{SASL}}}success"


async def test_a_new_account_is_known_everywhere(cluster, ctl, cluster_auth):
    new = cluster_auth.absent("new")
    for worker in cluster.cluster.workers:
        assert "does not exist" in await Ctl(worker.config).refused("check_account", new.user, HOST)
    assert "successfully registered" in await ctl.text("register", new.user, HOST, new.password)
    for worker in cluster.cluster.workers:
        assert await Ctl(worker.config).text("check_account", new.user, HOST)


async def test_levels_of_the_log_are_of_one_node(cluster, ctl):
    here, there = (Ctl(worker.config) for worker in cluster.cluster.workers)
    if ctl.config != here.config:
        here, there = there, here
    before = (await here.json("get_loglevel"))["level"]
    assert "debug" in await here.text("set_loglevel", "debug")
    assert (await here.json("get_loglevel"))["level"] == "debug"
    assert (await there.json("get_loglevel"))["level"] == before
    assert await here.text("set_loglevel", before)
