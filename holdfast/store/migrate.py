"""Schema, policies and roles: what `holdfast migrate` does, as the owner."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from holdfast.domain.errors import Unavailable
from holdfast.store.catalogue import NEVER

_GRANTS = (
    "GRANT USAGE ON SCHEMA public TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    # The least that the code needs: next to nothing is ever deleted, and what is on record stays on record.
    *(f"REVOKE {', '.join(privileges)} ON {table} FROM {{role}}" for table, privileges in NEVER.items()),
)

#: The functions of ours that policies, triggers and queries call as the application's role. (A trigger's own needs no
#: leave.)
_FUNCTIONS = text("""
SELECT p.oid::regprocedure::text FROM pg_proc p
WHERE pronamespace = 'public'::regnamespace AND proowner = current_user::regrole AND prorettype <> 'trigger'::regtype
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
""")


async def migrate(owner_url: str, app_url: str) -> None:
    """Bring the schema to the newest revision, and make the application's role if it does not exist.

    Args:
        owner_url: connects as a role that may create tables and roles.
        app_url: its user becomes the application's role, with its password, neither owner nor superuser.

    Raises:
        Unavailable: the database can't be reached.
    """
    engine = create_async_engine(owner_url, hide_parameters=True, connect_args={"timeout": 5})
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade)
            await _make_role(connection, app_url)
    except (OSError, DBAPIError) as error:
        if isinstance(error, DBAPIError) and not error.connection_invalidated and error.statement:
            raise
        raise Unavailable(f"The database can't be reached as its owner: {error}") from error
    finally:
        await engine.dispose()


def current_revision(connection: Connection) -> str | None:
    """The revision the database is at; None: never migrated."""
    return MigrationContext.configure(connection).get_current_revision()


def newest_revision() -> str | None:
    """The revision that this version of Holdfast needs."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def _make_role(connection: AsyncConnection, app_url: str) -> None:
    url = make_url(app_url)
    role = connection.dialect.identifier_preparer.quote_identifier(url.username or "")
    known = await connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": url.username})
    if not known:
        await connection.execute(text(f"CREATE ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE"))
    if url.password:
        # PostgreSQL takes no parameter here; quote_literal makes it safe.
        literal = await connection.scalar(text("SELECT quote_literal(:password)"), {"password": str(url.password)})
        await connection.exec_driver_sql(f"ALTER ROLE {role} PASSWORD {literal}")
    for grant in _GRANTS:
        await connection.execute(text(grant.format(role=role)))
    for function in await connection.scalars(_FUNCTIONS):
        await connection.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {function} TO {role}")
