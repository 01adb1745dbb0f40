"""The loopback authentication service."""
