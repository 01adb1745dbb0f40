"""Row 6: names that begin like a stanza's, by way of a prefix."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("name", ["message:message", "messagex:message", "message-:message"])
async def test_a_prefix_is_not_taken_for_the_name(server, account, name):
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    prefix = name.partition(":")[0]
    await romeo.send(
        f"<{name} xmlns:{prefix}='jabber:client' to='{juliet.full}' type='chat'><{prefix}:body>hi</{prefix}:body></{name}>"
    )
    await juliet.receives(f"<message from='{romeo.full}' to='{juliet.full}' type='chat'><body>hi</body></message>")
