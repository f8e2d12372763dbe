"""The audit log as a test sees it: what is wrong with it, also after somebody has tampered with it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from holdfast.services.audit_verification import Tally, wrong_in
from holdfast.store.engine import Database

#: The log of one tenant, in order.
AUDITED = """
SELECT a.kind, a.outcome, a.run_id, a.subject_id, a.attempt, a.person, a.detail
FROM audit a JOIN audit_chain c ON c.tenant_id = a.tenant_id AND c.audit_id = a.audit_id
WHERE a.tenant_id = $1 ORDER BY c.seq
"""


async def wrong(database: Database, tenant_id: str, tally: Tally | None = None) -> list[str]:
    """Everything that is wrong with a tenant's log."""
    return [str(finding) async for finding in wrong_in(database, tenant_id, tally or Tally())]


class Tampered(Database):
    """The database as it is after statements that its superuser ran, which are taken back at the end of each look.

    `:t` in a statement is the tenant.
    """

    def __init__(self, owner_url: str, tenant_id: str, statements: Sequence[str]) -> None:
        self._owner = create_async_engine(owner_url)
        self._tenant_id = tenant_id
        self._statements = statements
        super().__init__(self._owner)

    @asynccontextmanager
    async def _transaction(self, name: str, value: str, isolation: str | None = None) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._owner.connect() as connection:
                # So that no trigger and no foreign key stands in the way.
                await connection.execute(text("SET session_replication_role = replica"))
                for statement in self._statements:
                    bound = {"t": self._tenant_id} if ":t" in statement else {}
                    assert (await connection.execute(text(statement), bound)).rowcount, f"no row: {statement}"
                yield connection
                await connection.rollback()
        finally:
            await self._owner.dispose()
