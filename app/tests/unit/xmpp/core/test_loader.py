"""Loading, unloading and reloading of modules."""

from __future__ import annotations

import pytest

from monktalk.common.config import Kind, Option
from monktalk.xmpp.core.hooks import HostHooks
from monktalk.xmpp.core.loader import DependencyError, enabled, load_modules, order, reload_modules, unload_modules
from monktalk.xmpp.core.module import Module, Target, iq
from monktalk.xmpp.modules import ALL
from tests.support.inproc import HOST, OTHER_HOST, configuration, site

NS = "urn:example:base"
events: list[str] = []


@pytest.fixture(autouse=True)
def fresh_events():
    events.clear()


class Base(Module):
    """What others build on."""

    name = "base"
    options = (Option("colour", Kind.STRING, "red", doc="A colour."),)

    async def start(self) -> None:
        """Note it."""
        events.append(f"start {self.name}")

    async def stop(self) -> None:
        """Note it."""
        events.append(f"stop {self.name}")

    def reload(self, settings) -> None:
        """Note it."""
        super().reload(settings)
        events.append(f"reload {self.name}")


class First(Base):
    """Answers requests and takes part in a hook."""

    name = "first"

    @iq("get", NS, "query", to=Target.HOST)
    def answer(self, _request, _session):
        return None

    @HostHooks.user_message.handler()
    def message(self, session, stanza) -> None:
        """Let it pass."""


class Second(Base):
    """Needs the first."""

    name = "second"
    requires = ("first",)


class Third(Base):
    """Needs the second; off by default."""

    name = "third"
    requires = ("second",)
    default = False


class Rival(Base):
    """Wants what the first one has."""

    name = "rival"

    @iq("get", NS, "other", to=Target.HOST)
    @iq("get", NS, "query", to=Target.HOST)
    def answer(self, _request, _session):
        return None

    @HostHooks.user_message.handler()
    def message(self, session, stanza) -> None:
        """Let it pass."""


class Broken(First):
    """Can't be started, nor stopped."""

    name = "broken"

    async def start(self) -> None:
        """Fail."""
        raise RuntimeError("no coffee")

    async def stop(self) -> None:
        """Fail."""
        raise RuntimeError("no coffee")


class Unstoppable(Base):
    """Can't be stopped."""

    name = "unstoppable"

    @HostHooks.user_message.handler()
    def message(self, session, stanza) -> None:
        """Let it pass."""

    async def stop(self) -> None:
        """Fail."""
        raise RuntimeError("no way")


CHAIN = {"third": Third, "second": Second, "first": First}


def registered(host) -> tuple[object, ...]:
    """Everything that modules can register on a host."""
    handlers = {name: getattr(host.hooks, name).handlers for name in vars(host.hooks)}
    return dict(host.iq_handlers), handlers, list(host.modules)


# -- order -------------------------------------------------------------------------------------------------------------


def test_modules_come_behind_what_they_require():
    assert order(CHAIN, {"first", "second", "third"}) == ["first", "second", "third"]
    assert order(CHAIN, {"second", "first"}) == ["first", "second"]
    assert order(CHAIN, set()) == []


def test_a_requirement_that_is_not_enabled_is_named_with_the_way_out():
    with pytest.raises(DependencyError) as caught:
        order(CHAIN, {"third", "first"})
    assert str(caught.value) == (
        "module third requires module second, which is not enabled: enable [modules.second] or disable [modules.third]"
    )


def test_modules_that_require_each_other_are_refused():
    class One(Base):
        """Needs the other."""

        name = "one"
        requires = ("other",)

    class Other(Base):
        """Needs the one."""

        name = "other"
        requires = ("one",)

    with pytest.raises(DependencyError, match="one -> other -> one"):
        order({"one": One, "other": Other}, {"one", "other"})


def test_the_modules_of_the_server_can_be_ordered():
    ordered = order(ALL, set(ALL))
    assert sorted(ordered) == sorted(ALL)
    for index, name in enumerate(ordered):
        assert set(ALL[name].requires) <= set(ordered[:index])


# -- load, unload ------------------------------------------------------------------------------------------------------


async def test_modules_are_loaded_in_order_and_unloaded_the_other_way_round():
    async with site(CHAIN, "[modules.third]\nenabled = true\n", hosts=(HOST,)) as server:
        assert list(server.host.modules) == ["first", "second", "third"]
        await unload_modules(server.host)
        assert events == [
            *("start first", "start second", "start third"),
            *("stop third", "stop second", "stop first"),
        ]


async def test_what_is_enabled_is_asked_for_each_host():
    text = f"[host.'{OTHER_HOST}'.modules.third]\nenabled = true\n"
    async with site(CHAIN, text) as server:
        assert enabled(server.host, CHAIN) == {"first", "second"}
        assert enabled(server.server.hosts[OTHER_HOST], CHAIN) == set(CHAIN)


async def test_unloading_undoes_everything():
    async with site({}) as server:
        before = registered(server.host)
        server.host.config = configuration(CHAIN)
        await load_modules(server.host, CHAIN)
        assert registered(server.host) != before
        await unload_modules(server.host)
        assert registered(server.host) == before


async def test_the_modules_of_the_server_undo_everything_and_streams_stay():
    async with site(ALL) as server:
        romeo, juliet = await server.online("romeo"), await server.online("juliet")
        await unload_modules(server.host)
        iqs, handlers, modules = registered(server.host)
        assert (iqs, modules) == ({}, [])
        assert not any(handlers.values())
        romeo.send(f"<message to='{juliet.jid}' type='chat' id='1'><body>still here</body></message>")
        assert [node.get("id") for node in await juliet.arrived()] == ["1"]
        await load_modules(server.host, ALL)
        assert (await romeo.iq("get", "<ping xmlns='urn:xmpp:ping'/>")).get("type") == "result"


async def test_two_modules_can_not_have_one_request():
    async with site({"first": First}, hosts=(HOST,)) as server:
        before = registered(server.host)
        server.host.config = configuration({"rival": Rival})
        with pytest.raises(ValueError, match="module rival: another module handles urn:example:base}query already"):
            await load_modules(server.host, {"rival": Rival})
        assert registered(server.host) == before


async def test_a_module_that_does_not_start_leaves_nothing_behind():
    async with site({}, hosts=(HOST,)) as server:
        before = registered(server.host)
        server.host.config = configuration({"broken": Broken})
        with pytest.raises(RuntimeError, match="no coffee"):
            await load_modules(server.host, {"broken": Broken})
        assert registered(server.host) == before


async def test_a_module_that_does_not_stop_is_unloaded_all_the_same(caplog):
    modules = {"first": First, "unstoppable": Unstoppable}
    async with site(modules, hosts=(HOST,)) as server:
        await unload_modules(server.host)
        iqs, handlers, left = registered(server.host)
        assert (iqs, left) == ({}, [])
        assert not any(handlers.values())
    assert [record.getMessage() for record in caplog.records] == ["module_stop_failed"]
    assert events[-1] == "stop first"


# -- reload ------------------------------------------------------------------------------------------------------------


async def reload(server, text: str, modules=CHAIN) -> None:
    events.clear()
    server.server.config = configuration(modules, text, (HOST,))
    await server.server.reload_host(server.host)
    await reload_modules(server.host, modules)


async def test_a_reload_loads_what_is_enabled_now_and_touches_nothing_else():
    async with site(CHAIN, hosts=(HOST,)) as server:
        await reload(server, "[modules.third]\nenabled = true\n")
        assert events == ["start third"]
        assert list(server.host.modules) == ["first", "second", "third"]


async def test_a_reload_unloads_what_is_not_enabled_any_more():
    async with site(CHAIN, "[modules.third]\nenabled = true\n", hosts=(HOST,)) as server:
        await reload(server, "[modules.second]\nenabled = false\n")
        assert events == ["stop third", "stop second"]
        assert list(server.host.modules) == ["first"]


async def test_a_reload_hands_new_settings_to_the_modules_that_have_some():
    async with site(CHAIN, hosts=(HOST,)) as server:
        kept = server.host.modules["first"]
        await reload(server, "[modules.first]\ncolour = 'blue'\n")
        assert events == ["reload first"]
        assert server.host.modules["first"] is kept
        assert kept.settings.colour == "blue"


async def test_whoever_caches_what_the_host_tells_about_itself_hears_of_a_reload():
    async with site(CHAIN, hosts=(HOST,)) as server:
        changes: list[int] = []
        server.host.hooks.features_changed.add(lambda: changes.append(1))
        await reload(server, "[modules.third]\nenabled = true\n")
        assert changes


async def test_modules_that_lack_what_they_require_are_not_loaded():
    async with site(CHAIN, hosts=(HOST,)) as server:
        with pytest.raises(DependencyError):
            await reload(server, "[modules.first]\nenabled = false\n")
        assert events == []
        assert list(server.host.modules) == ["first", "second"]
