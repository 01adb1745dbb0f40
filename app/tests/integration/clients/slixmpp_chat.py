"""A chat program on slixmpp: what it reads from standard input as ``TO<tab>TEXT`` it sends, what it receives it prints.

Received messages are printed as ``FROM<tab>TEXT``. Arguments: ``direct`` or ``starttls``, port, bare JID, password, the
certificate to trust.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import slixmpp


class Chat(slixmpp.ClientXMPP):
    """The client."""

    def __init__(self, jid: str, password: str) -> None:
        super().__init__(jid, password)
        self.online = asyncio.Event()
        self.register_plugin("xep_0199")
        self.add_event_handler("session_start", self._start)
        self.add_event_handler("message", self._receive)
        self.add_event_handler("failed_auth", self._fail)

    async def _start(self, _event: object) -> None:
        self.send_presence()
        await self.get_roster()
        say(f"online\t{self.boundjid.full}")
        self.online.set()

    @staticmethod
    def _fail(_event: object) -> None:
        sys.exit("the server does not let the client in")

    @staticmethod
    def _receive(message: slixmpp.Message) -> None:
        if message["body"]:
            say(f"{message['from']}\t{message['body']}")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(transport: str, port: str, jid: str, password: str, certificate: str) -> None:
    """Chat until the standard input ends."""
    client = Chat(jid, password)
    client.ca_certs = Path(certificate)
    client.enable_direct_tls = transport == "direct"
    client.enable_starttls = transport == "starttls"
    _ = client.connect("127.0.0.1", int(port))
    await client.online.wait()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        to, _, text = line.rstrip("\n").partition("\t")
        client.send_message(mto=slixmpp.JID(to), mbody=text, mtype="chat")
    await client.disconnect()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
