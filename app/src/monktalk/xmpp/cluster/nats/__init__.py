"""A client of NATS: the wire protocol without I/O, and one connection that comes back by itself."""
