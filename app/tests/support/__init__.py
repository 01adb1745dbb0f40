"""What the tests at wire level stand on: the real programs as child processes, and a client that speaks XMPP itself."""
