#!/usr/bin/env python3
"""A service behind the join proxies: it tells each client what the PROXY protocol said of it, and then echoes lines.

On port 5390 it says whether it wants clients: yes, unless there is a file /run/lab-service/not-ready.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from ipaddress import ip_address
from pathlib import Path

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FAMILIES = {0x11: 4, 0x21: 16}
NOT_READY = Path("/run/lab-service/not-ready")


async def who(reader: asyncio.StreamReader) -> dict[str, object] | None:
    """What the header says: the client's address, and where it wanted to go. None for a check of the proxy's own."""
    header = await reader.readexactly(16)
    if not header.startswith(SIGNATURE) or header[12] >> 4 != 2:
        raise ValueError(f"no PROXY header of version 2: {header!r}")
    rest = await reader.readexactly(struct.unpack("!H", header[14:])[0])
    if header[12] & 0x0F == 0:
        return None
    size = FAMILIES[header[13]]
    client_port, port = struct.unpack("!HH", rest[2 * size : 2 * size + 4])
    return {"client": str(ip_address(rest[:size])), "client_port": client_port, "port": port}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One client."""
    try:
        client = await who(reader)
        if client is not None:
            writer.write(json.dumps({"node": socket.gethostname(), **client}).encode() + b"\n")
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
    except (ValueError, KeyError, asyncio.IncompleteReadError, ConnectionError) as error:
        print(f"refused {writer.get_extra_info('peername')}: {error!r}", flush=True)  # noqa: T201 - to the journal
    finally:
        writer.close()


async def ready(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One question whether clients are wanted."""
    try:
        request = await reader.readuntil(b"\r\n\r\n")
        path = request.split()[1]
        there = "503 Service Unavailable" if NOT_READY.exists() else "200 OK"  # noqa: ASYNC240 - in memory
        status = there if path == b"/ready" else "404 Not Found"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    """Serve until killed."""
    everywhere = "0.0.0.0"  # noqa: S104 - the packet filter says who may
    async with (
        await asyncio.start_server(serve, everywhere, 5222, backlog=1024) as service,
        await asyncio.start_server(ready, everywhere, 5390) as readiness,
    ):
        await asyncio.gather(service.serve_forever(), readiness.serve_forever())


asyncio.run(main())
