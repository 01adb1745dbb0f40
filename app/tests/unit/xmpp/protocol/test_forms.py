"""Data forms (XEP-0004)."""

from __future__ import annotations

import pytest

from monktalk.xmpp.protocol.forms import (
    JID_MULTI,
    LIST_SINGLE,
    TEXT_PRIVATE,
    Field,
    InvalidForm,
    Submission,
    find_form,
    form,
    result,
)
from monktalk.xmpp.protocol.xmltree import element, from_bytes, to_bytes

TYPE = "urn:example:form"


def submitted(*fields: str, kind: str = "submit") -> Submission:
    """A submission as it comes from a client."""
    text = f"<x xmlns='jabber:x:data' type='{kind}'>{''.join(fields)}</x>"
    return Submission.from_element(from_bytes(text.encode()), TYPE)


def field(var: str, *values: str) -> str:
    return f"<field var='{var}'>{''.join(f'<value>{value}</value>' for value in values)}</field>"


def test_a_form():
    fields = [
        Field("jids", JID_MULTI, "Who", ["a@b", "c@d"], required=True),
        Field("secret", TEXT_PRIVATE),
        Field("number", LIST_SINGLE, options={"1": "One", "none": "None"}),
    ]
    assert to_bytes(form(TYPE, "Title", "Do <this>", fields)).decode() == (
        "<x xmlns='jabber:x:data' type='form'><title>Title</title><instructions>Do &lt;this&gt;</instructions>"
        f"<field var='FORM_TYPE' type='hidden'><value>{TYPE}</value></field>"
        "<field var='jids' type='jid-multi' label='Who'><value>a@b</value><value>c@d</value><required/></field>"
        "<field var='secret' type='text-private'/>"
        "<field var='number' type='list-single'><option label='One'><value>1</value></option>"
        "<option label='None'><value>none</value></option></field></x>"
    )


def test_a_result_with_something_of_another_specification():
    assert to_bytes(result(TYPE, [Field("x", values=["1"])], element("urn:other", "y"))).decode() == (
        f"<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'><value>{TYPE}</value></field>"
        "<field var='x' type='text-single'><value>1</value></field><y xmlns='urn:other'/></x>"
    )


def test_reading_a_submission():
    form = submitted(field("FORM_TYPE", TYPE), field("jids", "a@b", " ", " c@d "), field("text", "one", "", "two"))
    assert form.many("jids") == ["a@b", "c@d"]
    assert form.text("text") == "one\n\ntwo"
    assert submitted(field("one", " as it is ")).one("one") == " as it is "
    assert (form.one("missing"), form.many("missing"), form.text("missing")) == ("", [], "")
    assert submitted("<field var='empty'/>", "<field var='blank'><value/></field>").one("blank") == ""


@pytest.mark.parametrize(
    ("fields", "kind", "reason"),
    [
        ([], "form", "not of type submit"),
        ([], "cancel", "not of type submit"),
        (["<field><value>x</value></field>"], "submit", "has no name"),
        ([field("a", "1"), field("a", "2")], "submit", "is there twice"),
        ([field("FORM_TYPE", "urn:other")], "submit", "not of the type urn:example:form"),
        ([field("FORM_TYPE")], "submit", "not of the type"),
    ],
)
def test_what_is_no_submission(fields, kind, reason):
    with pytest.raises(InvalidForm, match=reason):
        submitted(*fields, kind=kind)


def test_one_value_is_one():
    with pytest.raises(InvalidForm, match="the field a has several values"):
        submitted(field("a", "1", "2")).one("a")


def test_finding_a_form():
    holder = from_bytes(b"<a xmlns='urn:a'><x xmlns='urn:b'/><x xmlns='jabber:x:data' type='submit'/></a>")
    assert find_form(holder) is holder[1]
    assert find_form(holder[0]) is None
