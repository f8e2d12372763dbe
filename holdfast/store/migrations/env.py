"""Run by alembic; `holdfast.store.migrate` hands it the owner's connection."""

from alembic import context

from holdfast.store.tables.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
