"""The core of the server: it routes stanzas and calls hooks; features are modules."""
