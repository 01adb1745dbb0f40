"""Row 11: secrets that can be guessed, and comparisons that take their time (CVE-2021-32921)."""

from __future__ import annotations

import ast
import base64
import math
from collections import Counter
from pathlib import Path

import pytest

import monktalk

pytestmark = pytest.mark.one_worker("about the sources and the programs")

SOURCES = sorted(Path(monktalk.__file__).parent.rglob("*.py"))
SM = "urn:xmpp:sm:3"
REACHED_BY_STRANGERS = [source for source in SOURCES if {"auth", "xmpp", "common"} & set(source.parts)]
SECRET_WORDS = ("password", "secret", "proof", "signature", "mac", "digest", "stored_key")


def names_in(node: ast.expr) -> set[str]:
    """What an operand is called: the last part of a variable or attribute, the name of a called function."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, ast.Attribute):
        return {node.attr}
    return names_in(node.func) if isinstance(node, ast.Call) else set()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(SOURCES[0].parent)))
def test_no_guessable_random_numbers(source):
    """``random`` may jitter a delay (``random.Random``, ``random.SystemRandom``); it never makes a secret."""
    tree = ast.parse(source.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            assert {alias.name for alias in node.names} <= {"SystemRandom", "Random"}, f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            assert node.attr in ("SystemRandom", "Random"), f"line {node.lineno}: random.{node.attr}"
        if isinstance(node, ast.Attribute) and node.attr in ("uuid1", "getrandbits", "mktemp"):
            raise AssertionError(f"line {node.lineno}: {node.attr} can be guessed")


@pytest.mark.parametrize("source", REACHED_BY_STRANGERS, ids=lambda path: str(path.relative_to(SOURCES[0].parent)))
def test_secrets_are_compared_in_constant_time(source):
    """No ``==`` between two values of which one is called a secret; ``hmac.compare_digest`` does that."""
    tree = ast.parse(source.read_text())
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
            continue
        sides = [node.left, *node.comparators]
        if any(isinstance(side, ast.Constant) for side in sides):
            continue
        if names_in(sides[0]) | names_in(sides[-1]) == {"again", "password"}:
            continue  # what somebody typed twice
        named = {name.lower() for side in sides for name in names_in(side)}
        suspicious = {name for name in named if any(word == name or name.endswith(f"_{word}") for word in SECRET_WORDS)}
        assert not suspicious, f"line {node.lineno}: compares {sorted(suspicious)}"


def entropy(values: list[str]) -> float:
    """A lower estimate of the bits in one of the values: per position, from how the characters are spread."""
    bits = 0.0
    for position in range(min(len(value) for value in values)):
        counts = Counter(value[position] for value in values)
        bits += -sum(count / len(values) * math.log2(count / len(values)) for count in counts.values())
    return bits


async def test_stream_ids(server):
    ids = []
    for _ in range(100):
        client = await server.connect()
        await client.open_stream()
        ids.append(client.header["id"])
        await client.wire.close()
    assert len(set(ids)) == 100
    assert entropy(ids) > 80, "128 bits; a hundred samples show two thirds of them at least"


async def test_resources_and_resumption_ids(server, account):
    romeo = account("romeo")
    resources, tokens = [], []
    for _ in range(60):
        client = await server.login(romeo)
        resources.append(client.resource)
        await client.send(f"<enable xmlns='{SM}' resume='true'/>")
        tokens.append((await client.next()).get("id"))
        await client.end()
    assert len(set(resources)) == len(set(tokens)) == 60
    assert entropy(resources) > 40
    assert entropy(tokens) > 80


async def test_nonces_of_scram(server):
    nonces = []
    for _ in range(60):
        client = await server.stream()
        challenge = await client.auth("SCRAM-SHA-256", b"n,,n=nobody,r=abc")
        first = base64.b64decode(challenge.text).decode().split(",")[0]
        nonces.append(first.removeprefix("r=abc"))
        await client.wire.close()
    assert len(set(nonces)) == 60
    assert entropy(nonces) > 80


def test_files_with_secrets_are_private(farm):
    """What the server makes for itself is not for other users of the machine."""
    program = farm.program({})
    assert program.control_socket.exists()
    assert program.control_socket.stat().st_mode & 0o007 == 0
