"""Users at different workers talk as if they were at one."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.integration


def text_of(message):
    """Sender, id and body."""
    return message.get("from"), message.get("id"), message.findtext("{jabber:client}body")


async def test_messages_go_both_ways(cluster, account):
    romeo = await cluster.at(0).online(account("romeo"))
    juliet = await cluster.at(1).online(account("juliet"))
    await romeo.send(f"<message to='{juliet.full}' type='chat' id='m1'><body>hi</body></message>")
    assert text_of(await juliet.next()) == (romeo.full, "m1", "hi")
    await juliet.send(f"<message to='{romeo.bare}' type='chat' id='m2'><body>ho</body></message>")
    assert text_of(await romeo.next()) == (juliet.full, "m2", "ho")


async def test_a_second_client_of_a_user_joins_his_first_one(cluster, account):
    juliet = account("juliet")
    first = await cluster.at(0).online(juliet, "balcony")
    second = await cluster.at(1).online(juliet, "chamber")
    await first.receives(f"<presence from='{second.full}' to='{second.bare}'/>")
    await second.receives(f"<presence from='{first.full}' to='{second.full}'/>")
