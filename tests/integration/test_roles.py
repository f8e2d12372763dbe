"""As in production: the tables belong to a role that is no superuser, and `holdfast migrate` runs as that role."""

import uuid

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

from holdfast.domain.switches import EVERYBODY, Scope
from holdfast.services.keys import Keys
from holdfast.services.switches import Switches
from holdfast.store.engine import Database, create_engine
from holdfast.store.migrate import migrate
from tests.harness.servers import APP_ROLE, Servers


async def test_what_an_ordinary_owner_migrates_keeps_the_rules_and_the_operators_switch_works(
    running_servers: Servers,
) -> None:
    name = f"owned-{uuid.uuid4().hex[:8]}"
    await _as_superuser(
        running_servers, f'CREATE ROLE "{name}" LOGIN CREATEROLE', f'CREATE DATABASE "{name}" OWNER "{name}"'
    )
    owner_url = make_url(running_servers.postgres_url).set(database=name, username=name).render_as_string()
    app_url = running_servers.database_url(name, APP_ROLE)
    for _ in range(2):
        await migrate(owner_url, app_url)
    owner, app = (Database(create_engine(url, pool_size=1)) for url in (owner_url, app_url))
    try:
        assert await app.breaches() == []
        await app.check_role()
        await Keys(app, "p" * 32).create("shop", "ada")

        everything = Scope(EVERYBODY)
        await Switches(owner).throw(everything, "a fire", "olga")
        assert [str(one.scope) for one in await Switches(app).thrown("shop")] == ["all"]
        with pytest.raises(ProgrammingError, match="row-level security"):
            await Switches(app).throw(everything, "mine", "mallory")
        await Switches(owner).lift(everything, "olga")
        assert await Switches(app).thrown("shop") == []
        with pytest.raises(ProgrammingError, match="row-level security"):
            async with owner.tenant("shop") as connection:
                await connection.exec_driver_sql("INSERT INTO tenants (tenant_id) VALUES ('other')")
    finally:
        await owner.close()
        await app.close()


async def _as_superuser(servers: Servers, *statements: str) -> None:
    engine = create_async_engine(servers.postgres_url, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)
    finally:
        await engine.dispose()
