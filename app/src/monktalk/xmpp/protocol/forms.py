"""Data forms (XEP-0004): forms for people to fill in, results, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from monktalk.xmpp.protocol import namespaces as ns
from monktalk.xmpp.protocol.xmltree import Element, element, find

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FORM_TYPE: Final = "FORM_TYPE"

BOOLEAN: Final = "boolean"
HIDDEN: Final = "hidden"
JID_MULTI: Final = "jid-multi"
JID_SINGLE: Final = "jid-single"
LIST_SINGLE: Final = "list-single"
TEXT_MULTI: Final = "text-multi"
TEXT_PRIVATE: Final = "text-private"
TEXT_SINGLE: Final = "text-single"


@dataclass(frozen=True, slots=True)
class Field:
    """One field. ``options`` are the values to choose from, with what people see."""

    var: str
    type: str = TEXT_SINGLE
    label: str = ""
    values: Sequence[str] = ()
    required: bool = False
    options: Mapping[str, str] | None = None

    def to_element(self) -> Element:
        """``<field/>``."""
        attributes = {"var": self.var, "type": self.type}
        if self.label:
            attributes["label"] = self.label
        content = [_value(value) for value in self.values]
        content += [
            element(ns.DATA_FORMS, "option", {"label": label}, _value(value))
            for value, label in (self.options or {}).items()
        ]
        if self.required:
            content.append(element(ns.DATA_FORMS, "required"))
        return element(ns.DATA_FORMS, "field", attributes, *content)


def _value(text: str) -> Element:
    return element(ns.DATA_FORMS, "value", None, text)


def form(form_type: str, title: str, instructions: str, fields: Iterable[Field]) -> Element:
    """``<x type='form'/>``, to be filled in."""
    return element(
        ns.DATA_FORMS,
        "x",
        {"type": "form"},
        element(ns.DATA_FORMS, "title", None, title),
        element(ns.DATA_FORMS, "instructions", None, instructions),
        Field(FORM_TYPE, HIDDEN, values=(form_type,)).to_element(),
        *(field.to_element() for field in fields),
    )


def result(form_type: str, fields: Iterable[Field], *more: Element) -> Element:
    """``<x type='result'/>``. ``more`` is what other specifications put into it."""
    hidden = Field(FORM_TYPE, HIDDEN, values=(form_type,)).to_element()
    return element(ns.DATA_FORMS, "x", {"type": "result"}, hidden, *(field.to_element() for field in fields), *more)


class InvalidForm(ValueError):
    """What was sent is not the form that was expected; the message is a sentence."""


class Submission:
    """A form that was filled in. Every field is a list of values; a field that is not there is an empty list."""

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        self._values = values

    @classmethod
    def from_element(cls, node: Element, form_type: str) -> Submission:
        """Read ``<x type='submit'/>``. Raises :class:`InvalidForm`, also for a form of another type (XEP-0068)."""
        if node.get("type") != "submit":
            raise InvalidForm("the form is not of type submit")
        values: dict[str, list[str]] = {}
        for field in node.findall(f"{{{ns.DATA_FORMS}}}field"):
            var = field.get("var")
            if not var:
                raise InvalidForm("a field has no name")
            if var in values:
                raise InvalidForm(f"the field {var} is there twice")
            values[var] = [value.text or "" for value in field.findall(f"{{{ns.DATA_FORMS}}}value")]
        if values.get(FORM_TYPE, [form_type]) != [form_type]:
            raise InvalidForm(f"the form is not of the type {form_type}")
        return cls(values)

    def many(self, var: str) -> list[str]:
        """All values of a field, blank ones left out."""
        return [value.strip() for value in self._values.get(var, ()) if value.strip()]

    def one(self, var: str) -> str:
        """The only value of a field as it was written; empty without one. Raises :class:`InvalidForm` for several."""
        values = self._values.get(var, ())
        if len(values) > 1:
            raise InvalidForm(f"the field {var} has several values")
        return values[0] if values else ""

    def text(self, var: str) -> str:
        """The lines of a field of type ``text-multi``."""
        return "\n".join(self._values.get(var, ()))


def find_form(parent: Element) -> Element | None:
    """The form among the children of an element, or None."""
    return find(parent, ns.DATA_FORMS, "x")
