"""The XMPP server."""
