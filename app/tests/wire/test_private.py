"""Private XML storage (XEP-0049)."""

from __future__ import annotations

from tests.support.matching import assert_matches
from tests.support.stanzas import condition_of, payload_of

PRIVATE = "jabber:iq:private"
BOOKMARKS = "<storage xmlns='storage:bookmarks'><conference jid='a@b.example' name='x &amp; y'/></storage>"


def query(content: str) -> str:
    """A request."""
    return f"<query xmlns='{PRIVATE}'>{content}</query>"


async def test_set_and_get(server, account):
    romeo = await server.login(account("romeo"))
    answer = await romeo.set(query(BOOKMARKS))
    assert answer.get("type") == "result"
    answer = await romeo.get(query("<storage xmlns='storage:bookmarks'/>"))
    assert_matches(payload_of(answer), query(BOOKMARKS))


async def test_nothing_stored_yet(server, account):
    """XEP-0049, 2.3: the empty element comes back."""
    romeo = await server.login(account("romeo"))
    answer = await romeo.get(query("<storage xmlns='storage:bookmarks'/>"))
    assert_matches(payload_of(answer), query("<storage xmlns='storage:bookmarks'/>"))


async def test_namespaces_and_names_are_apart(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.set(query("<a xmlns='urn:example:one'>1</a>"))
    await romeo.set(query("<a xmlns='urn:example:two'>2</a>"))
    await romeo.set(query("<b xmlns='urn:example:one'>3</b>"))
    for name, namespace, value in (("a", "one", "1"), ("a", "two", "2"), ("b", "one", "3")):
        answer = await romeo.get(query(f"<{name} xmlns='urn:example:{namespace}'/>"))
        assert payload_of(answer)[0].text == value


async def test_it_outlives_the_session_and_belongs_to_the_account(server, account):
    romeo = await server.login(account("romeo"))
    await romeo.set(query(BOOKMARKS))
    await romeo.end()
    again = await server.login(romeo.account)
    assert_matches(payload_of(await again.get(query("<storage xmlns='storage:bookmarks'/>"))), query(BOOKMARKS))
    juliet = await server.login(account("juliet"))
    answer = await juliet.get(query("<storage xmlns='storage:bookmarks'/>"))
    assert_matches(payload_of(answer), query("<storage xmlns='storage:bookmarks'/>"))


async def test_the_storage_of_somebody_else(server, account):
    romeo, juliet = await server.login(account("romeo")), await server.login(account("juliet"))
    await juliet.set(query(BOOKMARKS))
    for kind in ("get", "set"):
        answer = await romeo.iq(kind, query("<storage xmlns='storage:bookmarks'/>"), to=juliet.bare)
        assert condition_of(answer) in ("forbidden", "service-unavailable")
    answer = await juliet.get(query("<storage xmlns='storage:bookmarks'/>"))
    assert_matches(payload_of(answer), query(BOOKMARKS))


async def test_bad_requests(server, account):
    romeo = await server.login(account("romeo"))
    assert condition_of(await romeo.get(query(""))) in ("bad-request", "not-acceptable")
    assert condition_of(await romeo.set(query(""))) in ("bad-request", "not-acceptable")
    assert condition_of(await romeo.set(query("<a/>"))) in ("bad-request", "not-acceptable")


async def test_as_much_as_allowed(server_with, account):
    server = server_with({"modules": {"private": {"max_size": "4 KiB", "max_elements": 3}}})
    romeo = await server.login(account("romeo"))
    big = query(f"<a xmlns='urn:example:big'>{'x' * 5000}</a>")
    assert condition_of(await romeo.set(big)) in ("resource-constraint", "not-acceptable", "policy-violation")
    for number in range(3):
        assert (await romeo.set(query(f"<a xmlns='urn:example:{number}'/>"))).get("type") == "result"
    one_more = await romeo.set(query("<a xmlns='urn:example:3'/>"))
    assert condition_of(one_more) in ("resource-constraint", "not-acceptable", "policy-violation")
    assert (await romeo.set(query("<a xmlns='urn:example:1'>changed</a>"))).get("type") == "result"
