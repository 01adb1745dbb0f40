"""Clients that send while things break, and the account of what became of every message."""
