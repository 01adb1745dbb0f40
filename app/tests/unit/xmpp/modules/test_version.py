"""Software version (XEP-0092)."""

from __future__ import annotations

from importlib import metadata

import pytest

from monktalk.xmpp.modules.version import Version
from monktalk.xmpp.protocol import namespaces as ns
from tests.support.inproc import HOST, payload, site


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", {"name": "MonkTalk", "version": metadata.version("monktalk")}),
        (
            "[modules.version]\nos = 'Debian'\n",
            {"name": "MonkTalk", "version": metadata.version("monktalk"), "os": "Debian"},
        ),
        ("[modules.version]\nname = 'Chat'\nversion = ''\n", {"name": "Chat", "version": ""}),
    ],
    ids=["by default", "with the operating system", "hidden"],
)
async def test_what_is_told(text, shown):
    async with site({"version": Version}, text) as server:
        answer = payload(await server.login("romeo").iq("get", f"<query xmlns='{ns.VERSION}'/>", to=HOST))
        assert {child.tag.removeprefix(f"{{{ns.VERSION}}}"): child.text or "" for child in answer} == shown
