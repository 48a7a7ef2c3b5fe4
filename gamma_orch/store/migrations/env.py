"""Alembic's entry: runs the migrations on the engine that `store.migrate` hands over."""

from alembic import context
from sqlalchemy import text

engine = context.config.attributes["engine"]

with engine.connect() as connection, connection.begin():
    if connection.dialect.name == "postgresql":
        # Held to the end of the transaction; any constant will do as long as it stays.
        connection.execute(text("SELECT pg_advisory_xact_lock(711820431)"))
    context.configure(connection=connection, version_table="gamma_schema", transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
