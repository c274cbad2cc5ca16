"""What Alembic runs: every step that is missing, in the transaction that `serve.database` opened."""

from alembic import context

from serve.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
