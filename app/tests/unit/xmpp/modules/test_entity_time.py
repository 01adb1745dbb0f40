"""Entity time (XEP-0202)."""

from __future__ import annotations

import time

import pytest

from monktalk.xmpp.modules.entity_time import EntityTime
from monktalk.xmpp.protocol import namespaces as ns
from tests.support.inproc import HOST, condition, payload, site

QUERY = f"<time xmlns='{ns.TIME}'/>"


@pytest.fixture
def zone(monkeypatch):
    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("name", "offset"), [("UTC0", "+00:00"), ("XXX-05:30", "+05:30"), ("XXX+03:30", "-03:30")])
async def test_time_and_offset(zone, name, offset):
    zone(name)
    async with site({"time": EntityTime}) as server:
        answer = payload(await server.login("romeo").iq("get", QUERY, to=HOST))
        assert answer.findtext(f"{{{ns.TIME}}}utc") == "2023-11-14T22:13:20Z"
        assert answer.findtext(f"{{{ns.TIME}}}tzo") == offset


async def test_accounts_have_no_time_of_their_own():
    async with site({"time": EntityTime}) as server:
        romeo = server.login("romeo")
        for to in (None, f"juliet@{HOST}"):
            assert condition(await romeo.iq("get", QUERY, to=to)) == "service-unavailable/cancel"
