"""Fixtures of the tests that need a real PostgreSQL."""

from __future__ import annotations

from tests.postgres import postgres, postgres_victim

__all__ = ["postgres", "postgres_victim"]
