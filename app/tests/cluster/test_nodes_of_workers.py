"""Two nodes of two workers each: what is asked of one worker is done by all of its node, or of all nodes."""

from __future__ import annotations

import pytest

from tests.support.cluster import Cluster
from tests.support.ctl import Ctl
from tests.support.polling import eventually
from tests.support.server import Server

pytestmark = pytest.mark.integration


@pytest.fixture
def programs(tmp_path, cluster_auth):
    cluster = Cluster(tmp_path, cluster_auth, {"cluster": {"workers": 2}}).start()
    yield cluster
    assert cluster.stop() == [0, 0]


async def states(ctl: Ctl) -> list[tuple[str, list[tuple[int, str]]]]:
    """Node, and number and state of each of its workers."""
    return [
        (member["node"], [(worker["number"], worker["state"]) for worker in member["workers"]])
        for member in (await ctl.json("cluster_status"))["members"]
    ]


async def test_nodes_are_reloaded_and_drained_as_a_whole(programs, account):
    here, there = (Ctl(worker.config) for worker in programs.workers)
    both = [(1, "serving"), (2, "serving")]
    await eventually(lambda: states(here), lambda found: found == [("node0", both), ("node1", both)], "all serve")
    for worker in programs.workers:
        worker.config.write_text(
            worker.config.read_text().replace('"other.example"', '"other.example", "new.example"', 1)
        )
    assert await there.lines("reload_cluster") == ["# Reloaded:", "mongooseim@node0", "mongooseim@node1"]
    server = Server(programs.workers[0])
    try:
        clients = [await server.online(account("romeo")) for _ in range(6)]
        assert set(await there.lines("connected_users")) == {client.full for client in clients}
        assert await here.text("stats", "onlineusersnode") == "6"
        assert await there.text("stats", "onlineusersnode") == "0"
        assert await here.text("set_loglevel", "debug")
        for _ in range(4):  # whichever worker answers
            assert (await here.json("get_loglevel"))["level"] == "debug"
        assert await here.text("drain", "0") == "The node mongooseim@node0 is drained, 6 sessions ended"
        for client in clients:
            await client.stream_error("system-shutdown")
        drained = [(1, "draining"), (2, "draining")]
        await eventually(lambda: states(there), lambda found: found == [("node0", drained), ("node1", both)], "drained")
        assert await here.text("join_cluster", "node1")
        await eventually(lambda: states(there), lambda found: found == [("node0", both), ("node1", both)], "all serve")
    finally:
        await server.close()
