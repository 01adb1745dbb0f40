"""Administration: the control socket of the server, and mongooseimctl, which talks to it."""
