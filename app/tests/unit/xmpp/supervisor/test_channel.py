"""Messages between supervisor and worker: whole, in order, with their descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import pytest

from monktalk.xmpp.supervisor.channel import MAX_PACKET, Channel, Message, as_file, from_file, pair, short


class End:
    """One end and what has come to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: list[tuple[Message, list[int]]] = []
        self.over = asyncio.Event()
        self._arrived = asyncio.Event()
        self.channel = Channel(sock, self._received, self.over.set)

    def _received(self, message: Message, descriptors: list[int]) -> None:
        self.messages.append((message, descriptors))
        self._arrived.set()

    async def next(self) -> tuple[Message, list[int]]:
        async with asyncio.timeout(10):
            while not self.messages:
                self._arrived.clear()
                await self._arrived.wait()
        return self.messages.pop(0)


@contextlib.asynccontextmanager
async def ends() -> AsyncIterator[tuple[End, End]]:
    one, other = map(End, pair())
    try:
        yield one, other
    finally:
        one.channel.close()
        other.channel.close()


async def test_messages_arrive_whole_and_in_order():
    async with ends() as (one, other):
        one.channel.send("first", text="a\nb")
        one.channel.send("second")
        assert await other.next() == ({"type": "first", "text": "a\nb"}, [])
        assert await other.next() == ({"type": "second"}, [])
        other.channel.send("answer", number=1)
        assert await one.next() == ({"type": "answer", "number": 1}, [])


async def test_descriptors_come_with_their_message():
    async with ends() as (one, other):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            one.channel.send("take", [listening.fileno()])
            _, [descriptor] = await other.next()
            with socket.socket(fileno=descriptor) as taken:
                assert taken.getsockname() == listening.getsockname()
                assert not taken.get_inheritable()


async def test_who_does_not_read_gets_everything_later():
    """A stopped worker does not stop its supervisor."""
    async with ends() as (one, _):
        ours, theirs = pair()
        sender = Channel(ours, lambda *_: None, lambda: None)
        with socket.socket() as passed:
            for number in range(100):
                sender.send("message", [passed.fileno()], number=number, filling="x" * 50_000)
            one.channel.close()
        late = End(theirs)
        for number in range(100):
            message, [descriptor] = await late.next()
            os.close(descriptor)
            assert message["number"] == number
        sender.close()
        late.channel.close()


async def test_the_end_of_one_side_is_seen_by_the_other():
    async with ends() as (one, other):
        one.channel.send("farewell")
        one.channel.close()
        assert (await other.next())[0] == {"type": "farewell"}
        async with asyncio.timeout(10):
            await other.over.wait()
        other.channel.send("nobody hears it")


async def test_a_closed_end_hears_and_says_nothing():
    async with ends() as (one, other):
        one.channel.close()
        one.channel.close()
        one.channel.send("nothing")
        async with asyncio.timeout(10):
            await other.over.wait()
        assert other.messages == []
        assert not one.over.is_set()


async def test_too_much_is_refused():
    async with ends() as (one, _):
        with pytest.raises(ValueError, match="too much"):
            one.channel.send("long", text="x" * MAX_PACKET)
        with pytest.raises(ValueError, match="254 descriptors"):
            one.channel.send("many", [0] * 254)


def test_what_is_long_goes_as_a_file():
    text = "ünïcode\n" * 100_000
    first = as_file(text)
    second = os.dup(first)
    assert from_file(first) == from_file(second) == text


def test_a_long_reason_is_cut():
    assert short("reason") == "reason"
    assert len(short("x" * 100_000).encode()) < MAX_PACKET / 2
