"""The control socket and mongooseimctl."""
