"""The filter xmpp_server_toml: what it writes means what it was given."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

import pytest

_PATH = Path(__file__).parents[1] / "filter_plugins" / "xmpp_server_toml.py"
_SPEC = importlib.util.spec_from_file_location("xmpp_server_toml", _PATH)
filters = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(filters)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"general": {"hosts": ["example.org"], "administrators": []}},
        {"top": 1, "general": {"language": "en"}, "limits": {"rate": "1 MiB", "idle_time": 0, "x": 1.5, "on": True}},
        {"listen": {"c2s": [{"address": "::", "port": 80}, {"address": "192.0.2.1", "port": 5222}]}},
        {"modules": {"ping": {"enabled": False}, "offline": {}}},
        {"host": {"example.org": {"tls": {"key": "/a b"}, "modules": {"roster": {"max_items": 5}}}}},
        {"text": {"quotes": 'a"b\\c', "lines": "a\nb\tc", "scripts": "bücher 😀", "delete": "\x7f\x01"}},
        {"a": {"list": [1, [2, 3], "x"], "inline": [[{"b": 1}], 2]}},
    ],
)
def test_what_is_written_is_read_as_it_was(document):
    assert tomllib.loads(filters.to_toml(document)) == document


def test_it_looks_like_written_by_hand():
    document = {
        "general": {"hosts": ["a.example", "b.example"]},
        "listen": {"c2s": [{"port": 80}]},
        "host": {"a.example": {"tls": {"key": "k"}}},
    }
    assert filters.to_toml(document) == (
        '[general]\nhosts = ["a.example", "b.example"]\n\n[[listen.c2s]]\nport = 80\n\n[host."a.example".tls]\nkey = "k"'
    )


def test_a_long_list_has_a_line_for_each_element():
    hosts = [f"host{number}.example.org" for number in range(9)]
    text = filters.to_toml({"general": {"hosts": hosts}})
    assert text.startswith('[general]\nhosts = [\n    "host0.example.org",\n')
    assert tomllib.loads(text) == {"general": {"hosts": hosts}}


@pytest.mark.parametrize("value", [None, object(), b"bytes"])
def test_what_toml_has_no_form_for_is_refused_with_its_place(value):
    with pytest.raises(ValueError, match=r"limits\.rate is"):
        filters.to_toml({"limits": {"rate": value}})


def test_a_document_is_a_mapping():
    with pytest.raises(ValueError, match="mapping"):
        filters.to_toml(["x"])


def test_ansible_finds_it():
    assert filters.FilterModule().filters() == {"xmpp_server_toml": filters.to_toml}
