"""Points and chains of handlers."""

from __future__ import annotations

import pytest

from monktalk.xmpp.core import hooks
from monktalk.xmpp.core.hooks import AsyncEvent, Event, HostHooks, Transform
from monktalk.xmpp.protocol.stanza import Stanza


def recorder(calls: list[str], name: str, result: object = None):
    def handler(*_arguments: object):
        calls.append(name)
        return result

    return handler


def stanza(name: str = "message") -> Stanza:
    return Stanza(name, {}, f"<{name}/>".encode(), [])


def test_handlers_run_by_priority_and_then_in_the_order_in_which_they_came():
    calls: list[str] = []
    event = Event("event")
    for name, priority in (("late", 5), ("first", -5), ("second", 0), ("third", 0)):
        event.add(recorder(calls, name), priority)
    assert event() is False
    assert calls == ["first", "second", "third", "late"]


def test_removing_handlers_does_not_change_the_order_of_the_others():
    calls: list[str] = []
    event = Event("event")
    gone = [recorder(calls, "gone"), recorder(calls, "gone too")]
    for handler in gone:
        event.add(handler)
    event.add(recorder(calls, "old"))
    for handler in gone:
        event.remove(handler)
    event.add(recorder(calls, "new"))
    event()
    assert calls == ["old", "new"]


def test_an_event_ends_with_the_handler_that_deals_with_it():
    calls: list[str] = []
    event = Event("event")
    event.add(recorder(calls, "one", None))
    event.add(recorder(calls, "two", True))
    event.add(recorder(calls, "three", True))
    assert event() is True
    assert calls == ["one", "two"]


def test_an_event_without_handlers_is_not_dealt_with():
    assert Event("event")("anything") is False


def test_a_handler_may_remove_itself_while_it_is_called():
    calls: list[str] = []
    event = Event("event")

    def once() -> None:
        calls.append("once")
        event.remove(once)

    event.add(once)
    event.add(recorder(calls, "always"))
    event()
    event()
    assert calls == ["once", "always", "always"]


def test_what_a_handler_of_an_event_raises_reaches_the_caller():
    event = Event("event")

    def fail() -> None:
        raise RuntimeError("broken")

    event.add(fail)
    with pytest.raises(RuntimeError, match="broken"):
        event()


def test_a_transform_hands_on_what_each_handler_returns():
    transform = Transform("transform")
    first, second = stanza("message"), stanza("presence")
    transform.add(lambda given, user: second if given is first and user == "juliet" else None)
    transform.add(lambda given, _user: given)
    assert transform(first, "juliet") is second


def test_a_transform_can_swallow_a_stanza():
    calls: list[str] = []
    transform = Transform("transform")
    transform.add(lambda _given: None)
    transform.add(recorder(calls, "never"))
    assert transform(stanza()) is None
    assert calls == []


def test_a_transform_without_handlers_changes_nothing():
    given = stanza()
    assert Transform("transform")(given) is given


async def test_async_handlers_run_one_after_the_other_and_failures_stop_nobody(caplog):
    calls: list[str] = []
    event = AsyncEvent("event")

    async def good(user: str) -> None:
        calls.append(f"good {user}")

    async def bad(user: str) -> None:
        calls.append(f"bad {user}")
        raise RuntimeError("broken")

    event.add(bad)
    event.add(good)
    await event("juliet")
    assert calls == ["bad juliet", "good juliet"]
    [record] = caplog.records
    assert (record.getMessage(), record.fields["hook"], record.fields["handler"].rpartition(".")[2]) == (
        "hook_failed",
        "event",
        "bad",
    )


def test_each_host_has_chains_of_its_own():
    one, other = HostHooks(), HostHooks()
    one.host_message.add(lambda _stanza: True)
    assert one.host_message(stanza()) is True
    assert other.host_message(stanza()) is False


def test_every_point_has_a_chain_of_its_kind():
    chains = HostHooks()
    for name, point in hooks.points().items():
        assert isinstance(getattr(chains, name), point.chain), name
        assert getattr(HostHooks, name) is point


def test_methods_are_marked_for_any_number_of_points():
    class Module:
        @HostHooks.session_bound.handler()
        @HostHooks.session_resumed.handler(priority=7)
        def note(self, session) -> None: ...

        def other(self) -> None: ...

    assert sorted(hooks.marks(Module().note)) == [("session_bound", 0), ("session_resumed", 7)]
    assert hooks.marks(Module().other) == []
