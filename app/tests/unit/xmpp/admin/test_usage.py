"""The help, and the page of the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from monktalk.xmpp.admin.registry import UsageError
from monktalk.xmpp.admin.usage import catalogue, explain, groups, overview

PAGE = Path(__file__).parents[5] / "docs/mongooseimctl.md"

CONTRACT = [
    "start",
    "stop",
    "restart",
    "status",
    "started",
    "stopped",
    "help",
    "reload_local",
    "register",
    "unregister",
    "change_password",
    "check_account",
    "check_password",
    "ban_account",
    "registered_users",
    "import_users",
    "registered_vhosts",
    "connected_users",
    "connected_users_info",
    "connected_users_vhost",
    "connected_users_number",
    "user_resources",
    "user_sessions_info",
    "kick_session",
    "num_resources",
    "status_list",
    "set_presence",
    "add_rosteritem",
    "delete_rosteritem",
    "get_roster",
    "push_roster",
    "process_rosteritems",
    "get_vcard",
    "get_vcard2",
    "get_vcard2_multi",
    "set_vcard",
    "set_vcard2",
    "set_vcard2_multi",
    "send_message_chat",
    "send_message_headline",
    "send_stanza_c2s",
    "delete_expired_messages",
    "delete_old_messages",
    "stats",
    "stats_host",
    "get_loglevel",
    "set_loglevel",
    "set_last",
    "private_get",
    "private_set",
    "add_domain",
    "remove_domain",
    "check_config",
    "cert_info",
]


def test_the_commands_that_operators_know_are_there():
    assert set(CONTRACT) - set(catalogue()) == set()


def test_the_overview_lists_everything():
    text = overview().text
    assert [entry.name for entry in catalogue().values() if f"\n  {entry.usage}\n" not in text] == []
    assert [group for group in groups() if f"\n{group}:\n" not in text] == []
    assert len(overview().data) == len(catalogue())


def test_one_command():
    result = explain(["register"])
    assert result.text.startswith("Usage: mongooseimctl register [USER] HOST PASSWORD\n\n  Make an account")
    assert result.data[0]["parameters"][0] == {"name": "USER", "optional": True}
    assert explain(["connected-users"]).text.startswith("Usage: mongooseimctl connected_users\n")


def test_commands_by_pattern():
    assert [entry["name"] for entry in explain(["*_account"]).data] == ["check_account", "ban_account", "unban_account"]


@pytest.mark.parametrize("arguments", [["frobnicate"], ["status", "started"]])
def test_help_that_there_is_not(arguments):
    with pytest.raises(UsageError):
        explain(arguments)


@pytest.mark.parametrize("entry", catalogue().values(), ids=lambda entry: entry.name)
def test_every_command_explains_itself_to_operators(entry):
    text = explain([entry.name]).text
    assert entry.doc in text
    assert not any(markup in text for markup in ("``", ":func:", ":class:", ":meth:"))


def test_the_page_lists_every_command():
    page = PAGE.read_text("utf-8")
    missing = [entry.usage for entry in catalogue().values() if f"`{entry.usage}` | {entry.doc} |" not in page]
    assert missing == []
