"""Listeners: the thin asyncio shells around the protocol machines."""
