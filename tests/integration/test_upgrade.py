"""An upgrade of a database that is in use, by an owner whom row-level security binds as it does in production."""

import asyncpg
from alembic import command
from sqlalchemy import Connection, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from holdfast.store.migrate import _config, migrate
from tests.harness.servers import APP_ROLE, Servers

OWNER = "an_owner"


async def as_superuser(servers: Servers, database: str, *statements: str) -> list[asyncpg.Record]:
    """Run statements; answers with the rows of the last."""
    url = make_url(servers.database_url(database)).set(drivername="postgresql").render_as_string()
    connection = await asyncpg.connect(url)
    try:
        return [list(await connection.fetch(statement)) for statement in statements][-1]
    finally:
        await connection.close()


async def at_revision(owner_url: str, revision: str) -> None:
    def upgrade(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    engine = create_async_engine(owner_url)
    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
    await engine.dispose()


async def test_keys_that_are_there_keep_doing_what_they_did(running_servers: Servers) -> None:
    """But for what is an admin's from now on."""
    database = "upgraded"
    await as_superuser(
        running_servers,
        make_url(running_servers.postgres_url).database or "",
        f"CREATE ROLE {OWNER} LOGIN NOSUPERUSER NOBYPASSRLS CREATEROLE",
        f"CREATE DATABASE {database} OWNER {OWNER}",
    )
    owner_url = running_servers.database_url(database, OWNER)
    await at_revision(owner_url, "0004")
    keys = {"none": "{}", "billing": "{billing}", "client": "{client}"}
    await as_superuser(
        running_servers,
        database,
        "INSERT INTO tenants VALUES ('acme')",
        *(
            "INSERT INTO api_keys (tenant_id, key_id, key_hash, person, roles)"
            f" VALUES ('acme', '{key_id}', '\\x00', 'ada', '{roles}')"
            for key_id, roles in keys.items()
        ),
    )

    await migrate(owner_url, running_servers.database_url(database, APP_ROLE))

    rows = await as_superuser(running_servers, database, "SELECT key_id, roles FROM api_keys")
    given = {row["key_id"]: sorted(row["roles"]) for row in rows}
    assert given == {
        "none": ["approver", "client", "operator"],
        "billing": ["approver", "billing", "client", "operator"],
        "client": ["approver", "client", "operator"],
    }
    (table,) = await as_superuser(
        running_servers, database, "SELECT relforcerowsecurity FROM pg_class WHERE relname = 'api_keys'"
    )
    assert table["relforcerowsecurity"]
