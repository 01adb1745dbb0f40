from __future__ import annotations

import json
import tomllib

from hypothesis import given
from hypothesis import strategies as st

from monktalk.common.config.locate import locate

DOCUMENT = '''\
# a comment with [brackets] and "quotes
hosts = [ # first
    "a", # ] not the end
    "b",
]
text = """
[not.a.table]
key = 1
""""
literal = \'\'\'
it's = "1"\'\'\'
after = 1

[limits]
"stanza size" = "256 KiB" # key = 2
rates.login = 1
rates.chat = { burst = 5, "per.second" = [1, 2] }

[[listen.c2s]]
port = 5222
[listen.c2s.tls]
cert = 'a\\'
[[listen.c2s]]
port = 80
tls.cert = "a\\"b"

[host."example.org".modules.roster]
max = 5
'''


def test_every_table_and_key_has_its_line():
    tomllib.loads(DOCUMENT)
    assert locate(DOCUMENT) == {
        ("hosts",): 2,
        ("hosts", 0): 3,
        ("hosts", 1): 4,
        ("text",): 6,
        ("literal",): 10,
        ("after",): 12,
        ("limits",): 14,
        ("limits", "stanza size"): 15,
        ("limits", "rates"): 16,
        ("limits", "rates", "login"): 16,
        ("limits", "rates", "chat"): 17,
        ("limits", "rates", "chat", "burst"): 17,
        ("limits", "rates", "chat", "per.second"): 17,
        ("limits", "rates", "chat", "per.second", 0): 17,
        ("limits", "rates", "chat", "per.second", 1): 17,
        ("listen",): 19,
        ("listen", "c2s"): 19,
        ("listen", "c2s", 0): 19,
        ("listen", "c2s", 0, "port"): 20,
        ("listen", "c2s", 0, "tls"): 21,
        ("listen", "c2s", 0, "tls", "cert"): 22,
        ("listen", "c2s", 1): 23,
        ("listen", "c2s", 1, "port"): 24,
        ("listen", "c2s", 1, "tls"): 25,
        ("listen", "c2s", 1, "tls", "cert"): 25,
        ("host",): 27,
        ("host", "example.org"): 27,
        ("host", "example.org", "modules"): 27,
        ("host", "example.org", "modules", "roster"): 27,
        ("host", "example.org", "modules", "roster", "max"): 28,
    }


def test_a_document_may_end_without_a_newline_or_be_empty():
    assert locate("a = 1") == {("a",): 1}
    assert locate("a = 2026-01-01T00:00:00Z # when") == {("a",): 1}
    assert locate("") == locate("\n# nothing\n") == {}


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


keys = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=8)
scalars = st.one_of(
    st.integers(-(2**40), 2**40).map(str),
    st.booleans().map(lambda value: str(value).lower()),
    keys.map(quoted),
    st.sampled_from(["1979-05-27T07:32:00Z", "1e3", "inf", "'[a]'", '"""x\ny"""', '""""quoted""""', "'''\n'''"]),
)


def array(items: list[str]) -> str:
    return "[\n" + ", # ]\n".join(items) + "\n]"


values = st.one_of(scalars, st.lists(scalars, max_size=3).map(array))


def flat(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Returns the paths of all tables, keys and elements of a document."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return set()
    paths = {(*path, key) for key, _ in items}
    return paths.union(*(flat(inner, (*path, key)) for key, inner in items))


@given(
    st.dictionaries(keys, values, max_size=4),
    st.dictionaries(keys, st.dictionaries(keys, values), max_size=3),
)
def test_it_finds_exactly_the_keys_that_the_document_has(top, tables):
    lines = [f"{quoted(key)} = {value}" for key, value in top.items()]
    for name, table in tables.items():
        if name in top:
            continue
        lines.append(f"[[{quoted(name)}]] # [x]" if len(table) % 2 else f"[ {quoted(name)} ]")
        lines += [f"  {quoted(key)}\t= {value}" for key, value in table.items()]
    text = "\n".join(lines)
    found = locate(text)
    assert set(found) == flat(tomllib.loads(text))
    rows = text.split("\n")
    for key in top:
        assert rows[found[(key,)] - 1].startswith(f"{quoted(key)} =")
