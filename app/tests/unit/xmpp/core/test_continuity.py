"""Sessions that outlive their worker. See also ``app/tests/cluster/test_continuity.py``, with real workers."""

from __future__ import annotations

import pytest

from tests.support.gate import Gate
from tests.support.inproc import HOST
from tests.support.inproc_cluster import cluster

SM = "urn:xmpp:sm:3"


@pytest.fixture
async def workers():
    async with cluster({"gate": Gate}) as running:
        yield running


async def managed(workers, number, user):
    """A session that is written down, and its token."""
    client = await workers.login(number, user)
    client.send(f"<enable xmlns='{SM}' resume='true'/>")
    (enabled,) = await workers.arrived(client)
    return client, enabled.get("id")


async def test_a_worker_stays_the_home_until_the_end_of_the_last_session_is_stored(workers):
    """Another worker would adopt the session that is just being ended, and keep it for a client that has said good-bye."""
    client, _ = await managed(workers, 0, "juliet")
    bus = workers.sites[0].server.bus
    client.send("</stream:stream>")
    assert workers.sites[0].host.user_sessions("juliet") == []
    assert bus.is_home(HOST, "juliet")
    await workers.settled()
    assert not bus.is_home(HOST, "juliet")


async def test_who_resumes_what_is_not_known_here_has_it_looked_for(workers, monkeypatch):
    """It may have been given up by another worker a moment ago."""
    asked = []
    adoption = workers.sites[0].server.adoption
    adopt = adoption.adopt

    async def note(host, user):
        asked.append((host.domain, user))
        await adopt(host, user)

    monkeypatch.setattr(adoption, "adopt", note)
    client = await workers.authenticated(0, "juliet")
    asked.clear()
    client.open()
    client.send(f"<resume xmlns='{SM}' previd='unknown' h='0'/>")
    answers = await workers.arrived(client)
    assert asked == [(HOST, "juliet")]
    assert [node[0].tag.rpartition("}")[2] for node in answers if node.tag == f"{{{SM}}}failed"] == ["item-not-found"]
