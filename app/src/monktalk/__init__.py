"""MonkTalk: an XMPP server and the services around it."""
