"""The bus between worker processes: its interface and its back ends."""
