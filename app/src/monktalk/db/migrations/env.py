"""Run by Alembic: applies revisions over the connection that `monktalk.db.migrate` has opened and locked."""

from __future__ import annotations

from alembic import context

from monktalk.db.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=False,
)
context.run_migrations()
