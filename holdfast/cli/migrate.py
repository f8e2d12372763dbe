"""`holdfast migrate`: the schema, its policies, and the application's role."""

import typer


def migrate() -> None:
    """Bring the database to the newest schema, as its owner, and make the application's role."""
    import asyncio

    from holdfast.config.loading import load_settings
    from holdfast.config.settings import MigrateSettings
    from holdfast.store.migrate import migrate, newest_revision

    settings = load_settings(MigrateSettings)
    asyncio.run(migrate(settings.database_owner_url.get_secret_value(), settings.database_url.get_secret_value()))
    typer.echo(f"the database is at revision {newest_revision()}")
