"""Alembic's environment and the revisions of the schema; `monktalk.db.migrate` runs them."""
