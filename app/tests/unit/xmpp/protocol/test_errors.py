"""Errors know their wire form."""

from __future__ import annotations

import pytest

from monktalk.xmpp.protocol.errors import STANZA_CONDITIONS, StanzaError, StreamError


def test_a_stream_error_is_escaped():
    assert StreamError("bad-format", "a < b").to_bytes() == (
        b"<stream:error><bad-format xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"
        b"<text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>a &lt; b</text></stream:error>"
    )


def test_an_unknown_condition_is_a_mistake_of_the_program():
    with pytest.raises(ValueError, match="no stream error condition"):
        StreamError("bad-weather")


@pytest.mark.parametrize(("condition", "kind"), STANZA_CONDITIONS.items())
def test_every_stanza_error_has_its_type(condition, kind):
    assert f"<error type='{kind}'><{condition} ".encode() in StanzaError(condition).to_bytes()


def test_the_type_may_be_another_one():
    assert b"type='modify'" in StanzaError("conflict", kind="modify").to_bytes()
