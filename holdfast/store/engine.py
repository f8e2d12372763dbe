"""The tenant's transaction: the one way to the database.

`SET` on a session would leak to whoever is handed the pooled connection next, so the tenant is set with
`set_config(…, true)`, which ends with the transaction. A query outside of one fails in PostgreSQL itself.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asyncpg.exceptions import InvalidCachedStatementError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from holdfast.domain.errors import ConfigurationError, Unavailable
from holdfast.store import catalogue, changes
from holdfast.store.catalogue import Breach
from holdfast.store.changes import Tell

_SET = text("SELECT set_config(:name, :value, true)")

# Also by way of a role that it is a member of, which SET ROLE would make it: with that, row-level security is a matter
# of its own good will. Whoever makes roles can make itself a member; a replica, and the server's files, hold every row.
_ROLE = text("""
WITH me AS (SELECT oid, rolname FROM pg_roles WHERE rolname = current_user), mine AS (
  SELECT r.* FROM pg_roles r, me WHERE pg_has_role(me.oid, r.oid, 'MEMBER')
)
SELECT me.rolname, array_remove(ARRAY[
  CASE WHEN EXISTS (SELECT FROM mine WHERE rolsuper) THEN 'superuser' END,
  CASE WHEN EXISTS (SELECT FROM mine WHERE rolbypassrls) THEN 'BYPASSRLS' END,
  CASE WHEN EXISTS (SELECT FROM mine WHERE rolcreaterole) THEN 'CREATEROLE' END,
  CASE WHEN EXISTS (SELECT FROM mine WHERE rolreplication) THEN 'REPLICATION' END,
  CASE WHEN EXISTS (
    SELECT FROM mine
    WHERE rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')
  ) THEN 'the server''s files' END,
  CASE WHEN EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN mine ON mine.oid = c.relowner
    WHERE n.nspname = 'public'
  ) OR EXISTS (
    SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN mine ON mine.oid = p.proowner
    WHERE n.nspname = 'public'
  ) OR EXISTS (SELECT FROM pg_database d JOIN mine ON mine.oid = d.datdba WHERE datname = current_database())
    OR EXISTS (SELECT FROM pg_namespace n JOIN mine ON mine.oid = n.nspowner WHERE nspname = 'public')
  THEN 'owner' END
], NULL) AS powers FROM me
""")


def create_engine(url: str, pool_size: int) -> AsyncEngine:
    """An engine whose pool holds at most `pool_size` connections. `Database` finds out which of them are dead."""
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        connect_args={"timeout": 5},
        # A driver's error text may quote the values of a row.
        hide_parameters=True,
    )


class Database:
    """Hands out transactions. Raises `Unavailable` when PostgreSQL does not answer.

    `tell` is handed what each has changed, once it is committed; None: whoever waits finds out alone, a little later.
    """

    def __init__(self, engine: AsyncEngine, tell: Tell | None = None) -> None:
        self._engine = engine
        self._tell = tell

    @asynccontextmanager
    async def tenant(self, tenant_id: str) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees, and can write, the rows of one tenant. Committed when the block ends well."""
        async with self._transaction("app.tenant_id", tenant_id) as connection:
            yield connection

    @asynccontextmanager
    async def key_lookup(self, key_hash: bytes) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one row: the API key with this hash. The tenant is not known before it is read."""
        async with self._transaction("app.key_hash", key_hash.hex()) as connection:
            yield connection

    @asynccontextmanager
    async def relay(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees ids only: the outbox of every tenant, their names, and the kill switches."""
        async with self._transaction("app.relay", "on") as connection:
            yield connection

    @asynccontextmanager
    async def heads(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees the audit chain of every tenant, which holds hashes only, and no other table."""
        async with self._transaction("app.heads", "on") as connection:
            yield connection

    @asynccontextmanager
    async def snapshot(self, tenant_id: str) -> AsyncIterator[AsyncConnection]:
        """A transaction that reads the rows of one tenant, all as they were at its beginning."""
        async with self._transaction("app.tenant_id", tenant_id, isolation="REPEATABLE READ") as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, name: str, value: str, isolation: str | None = None) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as connection:
                if isolation is not None:
                    await connection.execution_options(isolation_level=isolation)
                await _begin(connection, name, value)
                noted = changes.noting(connection)
                yield connection
                await connection.commit()
                if noted and self._tell is not None:
                    self._tell(noted)
        except (OSError, PoolTimeoutError) as error:
            raise Unavailable("The database can't be reached.") from error
        except StatementError as error:
            if _is_away(error):
                raise Unavailable("The database can't be reached.") from error
            if _is_of_other_columns(error):
                raise Unavailable("The database was migrated in this moment.") from error
            raise

    async def check_role(self) -> None:
        """Refuse a role that row-level security does not bind.

        Raises:
            ConfigurationError: the role, or one that it can become, is a superuser, bypasses row-level security, owns
                the tables, or can give itself such a role.
            Unavailable: the database does not answer.
        """
        try:
            async with self._engine.connect() as connection:
                role = (await connection.execute(_ROLE)).one()
        except (OSError, PoolTimeoutError, DBAPIError) as error:
            raise Unavailable(f"The database can't be reached: {_first_line(error)}") from error
        if role.powers:
            raise ConfigurationError(
                f"HOLDFAST_DATABASE_URL: the role {role.rolname!r} is not bound by row-level security: it is, or can "
                f"become, {', '.join(role.powers)}; connect as a role that is none of these, which `holdfast migrate` "
                "makes: give it HOLDFAST_DATABASE_OWNER_URL, and the role's own name here"
            )

    async def breaches(self) -> list[Breach]:
        """What breaks the rules that keep tenants apart."""
        async with self._engine.connect() as connection:
            return await catalogue.breaches(connection)

    async def revision(self) -> str | None:
        """The migration that the database is at."""
        async with self._engine.connect() as connection:
            found: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
            return found

    async def close(self) -> None:
        """Close every connection of the pool."""
        await self._engine.dispose()


async def _begin(connection: AsyncConnection, name: str, value: str) -> None:
    """Begin the transaction by naming whose rows it may see, which also shows whether the pooled connection lives.

    (`pool_pre_ping` would cost three round trips more for each transaction.)
    """
    setting = {"name": name, "value": value}
    try:
        await connection.execute(_SET, setting)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        # It died with a restart of PostgreSQL, before anything was done on it; what follows opens a new one.
        await connection.rollback()
        await connection.execute(_SET, setting)


def _is_away(error: StatementError) -> bool:
    if isinstance(error, DBAPIError) and (error.connection_invalidated or isinstance(error, InterfaceError)):
        return True
    # A connection that could not be opened again in the middle of a statement comes without a DBAPI's own error.
    if isinstance(error.orig, OSError):
        return True
    # 57P01 to 57P03: the server shuts down, crashed, or is starting up; 08xxx: the connection broke.
    state = str(getattr(error.orig, "sqlstate", None) or "")
    return state.startswith(("57P0", "08"))


def _is_of_other_columns(error: StatementError) -> bool:
    """Whether a table has other columns than when the statement was prepared: the next time it is prepared anew."""
    return isinstance(getattr(error.orig, "__cause__", None), InvalidCachedStatementError)


def _first_line(error: Exception) -> str:
    original = getattr(error, "orig", None) or error
    return (str(original).splitlines() or [type(original).__name__])[0]
