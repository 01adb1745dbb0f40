"""What a module declares."""

from __future__ import annotations

from monktalk.common.config import Kind, Option, Schema, parse
from monktalk.xmpp.core.module import Module, Target, iq, iq_marks


class Greeter(Module):
    """Greets (an example).

    What stands behind the first paragraph is for programmers.
    """

    name = "greeter"
    options = (Option("greeting", Kind.STRING, "hello", doc="What is said."),)

    @iq(("get", "set"), "urn:example:greet", "hello", to=(Target.HOST, Target.USER))
    @iq("get", "urn:example:greet", "bye", to=Target.SELF)
    def answer(self, _request, _session):
        return None


class Shy(Greeter):
    """Greets nobody unless asked to."""

    name = "shy"
    default = False


def settings(kind: type[Module], text: str = ""):
    return parse(text, "test", Schema([kind.section()])).section("modules", kind.name)


def test_a_handler_is_marked_for_every_type_and_target():
    assert set(iq_marks(Greeter.answer)) == {
        ("get", Target.HOST, "urn:example:greet}hello"),
        ("get", Target.USER, "urn:example:greet}hello"),
        ("set", Target.HOST, "urn:example:greet}hello"),
        ("set", Target.USER, "urn:example:greet}hello"),
        ("get", Target.SELF, "urn:example:greet}bye"),
    }


def test_the_section_has_the_options_and_the_first_paragraph():
    section = Greeter.section()
    assert section.path == ("modules", "greeter")
    assert section.doc == "Greets (an example)."
    assert section.per_host
    assert [option.name for option in section.options] == ["enabled", "greeting"]


def test_a_module_is_enabled_unless_it_says_otherwise():
    assert settings(Greeter).enabled is True
    assert settings(Shy).enabled is False
    assert settings(Shy, "[modules.shy]\nenabled = true\n").enabled is True


async def test_a_module_takes_new_settings_and_starts_and_stops_by_itself():
    host = object()
    module = Greeter(host, settings(Greeter))  # type: ignore[arg-type]  # it never looks at its host
    await module.start()
    module.reload(settings(Greeter, "[modules.greeter]\ngreeting = 'hi'\n"))
    assert module.settings.greeting == "hi"
    await module.stop()
    assert module.host is host
