"""Cluster life: status, reload of all nodes, draining, joining and leaving, workers that do not answer."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.support.cluster import Cluster
from tests.support.ctl import Ctl
from tests.support.polling import eventually
from tests.support.server import Server
from tests.support.sm import bodies, managed, message, resume

pytestmark = pytest.mark.integration

HOST = "localhost"


@pytest.fixture
def programs(tmp_path, cluster_auth):
    """Two workers of this test alone: it stops them, or changes their files."""
    cluster = Cluster(tmp_path, cluster_auth).start()
    yield cluster
    for worker in cluster.workers:
        if worker.running:
            os.kill(worker.pid, signal.SIGCONT)
    cluster.stop()


@pytest.fixture
async def views(programs):
    """Both workers, for clients."""
    servers = [Server(worker) for worker in programs.workers]
    yield servers
    for server in servers:
        await server.close()


@pytest.fixture
def here(programs) -> Ctl:
    return Ctl(programs.workers[0].config)


@pytest.fixture
def there(programs) -> Ctl:
    return Ctl(programs.workers[1].config)


async def status(ctl: Ctl):
    """Exit code and facts."""
    done = await ctl.run("--json", "cluster_status")
    return done.code, json.loads(done.out)


async def joined(here: Ctl, there: Ctl) -> None:
    """Both nodes see each other, and are members."""

    await eventually(lambda: status(here), lambda found: len(found[1]["members"]) == 2, "the nodes see each other")
    assert await here.text("join_cluster", "node1") == (
        "You have successfully joined the node mongooseim@node0 to the cluster with node member mongooseim@node1"
    )


async def test_status_of_a_whole_cluster(programs, views, account, here, there):
    await joined(here, there)
    await views[1].online(account("romeo"))
    code, facts = await status(here)
    assert (code, facts["problems"], facts["bus"], facts["database"]) == (0, [], "reachable", "reachable")
    assert [(one["node"], one["state"], one["expected"]) for one in facts["members"]] == [
        ("node0", "serving", True),
        ("node1", "serving", True),
    ]
    assert facts["members"][1]["sessions"] == 1
    head, *rows = await here.lines("cluster_status")
    assert head == "Cluster monktalk: 2 nodes, 2 workers; the bus is reachable, the database is reachable"
    assert [row.split("\t")[0] for row in rows] == ["mongooseim@node0", "mongooseim@node1"]
    assert [row.split("\t")[-1] for row in rows] == ["serving", "serving"]


async def test_a_node_that_is_missing(programs, here, there):
    await joined(here, there)
    programs.workers[1].stop()

    await eventually(lambda: status(here), lambda found: found[0] == 1, "the node is missed")
    done = await here.run("cluster_status")
    assert done.out.splitlines()[-1].split("\t") == ["mongooseim@node1", "", "", "", "", "missing"]
    assert done.err == "The node mongooseim@node1 is missing: it is not on the bus.\n"
    assert await here.text("remove_from_cluster", "mongooseim@node1") == (
        "The node mongooseim@node1 has been removed from the cluster"
    )
    assert (await status(here))[0] == 0
    assert "is no member" in await here.refused("remove_from_cluster", "node1")
    programs.workers[1].launch()
    assert "is alive" in await there.refused("remove_from_cluster", "node0")


async def test_a_worker_that_does_not_answer_is_named(programs, views, account, here, there):
    await joined(here, there)
    romeo = await views[0].online(account("romeo"))
    juliet = await views[1].online(account("juliet"))
    # SQLite has one writer at a time: nobody else could write while one is stopped in the middle.
    await eventually(
        lambda: here.json("registered_users", HOST),
        lambda found: {romeo.user, juliet.user} <= set(found),
        "the logins are written down",
    )
    os.kill(programs.workers[1].pid, signal.SIGSTOP)
    done = await here.run("connected_users")
    assert (done.code, done.out.splitlines()) == (1, [romeo.full])
    assert done.err.startswith("The node mongooseim@node1 has ")
    # Its sessions are taken over by the other worker, as those of a dead one are; what it has itself is not known.
    done = await eventually(
        lambda: here.run("ban_account", juliet.user, HOST, "noise"), lambda found: found.code == 1, "nobody knows", 30
    )
    assert done.err.startswith(f"User {juliet.user}@{HOST} can't log in any more, but may still be connected.")
    done = await here.run("--json", "connected_users")
    assert (done.code, json.loads(done.out)) == (1, [romeo.full])
    assert done.err == "The node mongooseim@node1 does not answer any more.\n"
    code, facts = await status(here)
    assert (code, facts["members"][1]["state"]) == (1, "missing")
    assert "The node mongooseim@node1 has vanished." in facts["problems"]
    done = await here.run("reload_cluster")
    assert done.code == 1
    assert "mongooseim@node1 it is not on the bus" in done.out
    os.kill(programs.workers[1].pid, signal.SIGCONT)

    await eventually(lambda: status(here), lambda found: found[0] == 0, "the node is back")


async def test_a_worker_that_dies_and_comes_back_is_missed_no_more(programs, here, there):
    await joined(here, there)
    programs.workers[1].kill()

    await eventually(lambda: status(here), lambda found: found[0] == 1, "the node is missed")
    assert (await here.run("connected_users")).code == 1
    programs.workers[1].launch()

    await eventually(lambda: status(here), lambda found: found[0] == 0, "the node is back")
    assert (await here.run("connected_users")).code == 0


def configure(programs, number: int, text: str) -> None:
    """Append to the configuration file of a worker."""
    with programs.workers[number].config.open("a") as file:
        file.write(text)


async def test_reload_of_all_nodes(programs, here, there):
    await joined(here, there)
    for number in (0, 1):
        file = programs.workers[number].config
        file.write_text(file.read_text().replace('"other.example"', '"other.example", "new.example"', 1))
    assert await here.lines("reload_cluster") == ["# Reloaded:", "mongooseim@node0", "mongooseim@node1"]
    for ctl in (here, there):
        assert "new.example" in await ctl.lines("registered_vhosts")
    rows = await there.json("reload_cluster")
    assert [(row["node"], row["reloaded"], row["reasons"]) for row in rows] == [
        ("node0", True, []),
        ("node1", True, []),
    ]


@pytest.mark.parametrize("asked", [0, 1])
async def test_nothing_is_reloaded_where_one_node_refuses_its_file(programs, here, there, asked):
    await joined(here, there)
    file = programs.workers[0].config
    file.write_text(file.read_text().replace('"other.example"', '"other.example", "new.example"', 1))
    configure(programs, 1, "\n[frobnicate]\nx = 1\n")
    done = await (here, there)[asked].run("reload_cluster")
    lines = done.out.splitlines()
    assert (done.code, lines[:2], done.err) == (1, ["# Reloaded:", "# Failed:"], "")
    assert lines[2].startswith(f"mongooseim@node1 {programs.workers[1].config}:")
    assert "frobnicate" in lines[2]
    assert "new.example" not in await here.lines("registered_vhosts")
    done = await here.run("--json", "reload_cluster")
    rows = {row["node"]: row for row in json.loads(done.out)}
    assert (done.code, rows["node0"]["reloaded"], rows["node0"]["reasons"]) == (1, False, [])
    assert "frobnicate" in rows["node1"]["reasons"][0]


async def test_a_drained_node_has_no_sessions(programs, views, account, here, there):
    await joined(here, there)
    at_home = await views[0].online(account("romeo"))
    elsewhere = await views[1].online(account("juliet"))
    relayed = await views[0].online(elsewhere.account, "chamber")
    done = await here.text("drain", "1")
    assert done == "The node mongooseim@node0 is drained, 1 session ended"
    await at_home.stream_error("system-shutdown")
    await relayed.stream_error("system-shutdown")
    await elsewhere.drained()
    code, facts = await status(there)
    assert (code, [one["state"] for one in facts["members"]]) == (0, ["draining", "serving"])
    assert facts["members"][0]["sessions"] == 0
    again = await views[1].online(at_home.account)
    assert {again.full, elsewhere.full} <= set(await here.lines("connected_users"))
    await joined(here, there)
    assert [one["state"] for one in (await status(there))[1]["members"]] == ["serving", "serving"]
    assert "SECONDS is a number" in await here.refused("drain", "soon", code=2)


async def test_sessions_of_a_drained_node_go_on_at_another_one(views, account, here, there):
    await joined(here, there)
    romeo = await views[1].online(account("romeo"))
    juliet, token = await managed(views[0], account)
    await romeo.send(message("before", juliet.full))
    assert (await juliet.next()).findtext("{jabber:client}body") == "before"
    assert "1 session ended" in await here.text("drain", "0")
    await juliet.stream_error("system-shutdown")
    await romeo.send(message("meanwhile", juliet.full))
    again = await resume(views[1], juliet, token, 2)
    await romeo.send(message("after", juliet.full))
    found = []
    while found[-1:] != ["after"]:
        found += bodies([await again.next()])
    assert found == ["meanwhile", "after"]
    assert await there.json("user_resources", juliet.user, HOST) == [juliet.full.partition("/")[2]]


async def test_a_node_leaves(programs, views, account, here, there):
    await joined(here, there)
    romeo = await views[0].online(account("romeo"))
    assert "has successfully left the cluster" in await here.text("leave_cluster", "0")
    await romeo.stream_error("system-shutdown")
    members = {one["node"]: one for one in (await status(there))[1]["members"]}
    assert (members["node0"]["expected"], members["node0"]["state"]) == (False, "draining")
    programs.workers[0].stop()

    await eventually(
        lambda: status(there),
        lambda found: found[0] == 0 and [one["node"] for one in found[1]["members"]] == ["node1"],
        "the node is gone, and not missed",
    )


async def test_whom_nobody_can_join(here):
    assert "is this node" in await here.refused("join_cluster", "mongooseim@node0", code=2)
    assert "is no node" in await here.refused("join_cluster", "one@two", code=2)
    assert "is not on the bus" in await here.refused("join_cluster", "node7")
    assert "is no member" in await here.refused("remove_from_cluster", "node7")


async def test_without_the_bus(programs, here):
    programs.nats.stop()

    await eventually(lambda: status(here), lambda found: found[1]["bus"] == "unreachable", "the bus is away")
    done = await here.run("cluster_status")
    assert done.code == 1
    assert "The bus can't be reached, so nothing is known of the other nodes." in done.err
    for command in (
        ("reload_cluster",),
        ("join_cluster", "node1"),
        ("remove_from_cluster", "node1"),
        ("leave_cluster",),
    ):
        assert "The bus can't be reached" in await here.refused(*command)
