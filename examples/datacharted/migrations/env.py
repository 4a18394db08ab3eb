"""Runs the migrations over the app's own engine, so that they write to the database that the app reads."""

from logging.config import fileConfig

from alembic import context
from flask import current_app

migrate = current_app.extensions["migrate"]


def write_sql() -> None:
    """`flask db upgrade --sql`: print the statements instead of running them."""
    url = migrate.db.engine.url.render_as_string(hide_password=False)
    context.configure(url=url, target_metadata=migrate.db.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def migrate_database() -> None:
    """Run the pending migrations."""
    with migrate.db.engine.connect() as connection:
        context.configure(connection=connection, target_metadata=migrate.db.metadata, **migrate.configure_args)
        with context.begin_transaction():
            context.run_migrations()


fileConfig(context.config.config_file_name, disable_existing_loggers=False)
if context.is_offline_mode():
    write_sql()
else:
    migrate_database()
