"""Sans-I/O protocol machines: bytes in, events and bytes out, nothing awaited."""
