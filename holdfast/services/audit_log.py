"""The audit log for those who read it: a page, or all of it."""

import json
from collections.abc import AsyncIterator

from holdfast.domain.audit import AuditEntry, AuditFilter, Head, Link
from holdfast.domain.switches import EVERYBODY
from holdfast.services.audit_heads import Signer
from holdfast.store import audit_chain, tenants
from holdfast.store.engine import Database

#: How many entries are read at once.
_BATCH = 500


class AuditLog:
    """Reads the audit log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, tenant_id: str, wanted: AuditFilter, *, after: int, limit: int) -> list[AuditEntry]:
        """A page of entries, oldest first, from the one after number `after` on."""
        async with self._database.tenant(tenant_id) as connection:
            return await audit_chain.page(connection, tenant_id, wanted, after=after, limit=limit)

    async def heads(self) -> list[Head]:
        """The head of every tenant's chain."""
        async with self._database.heads() as connection:
            return await audit_chain.heads(connection)

    async def tenants(self) -> list[str]:
        """Every tenant, and whoever else has a chain: rows may be left of one that was removed."""
        chained = {head.tenant_id for head in await self.heads()}
        async with self._database.relay() as connection:
            return sorted({*chained, *await tenants.all_names(connection), EVERYBODY})

    async def export(self, tenant_id: str, signer: Signer) -> AsyncIterator[str]:
        """Every entry of a tenant as a line, with what its hash is made of, and at the end the signed head."""
        head = None
        async with self._database.snapshot(tenant_id) as connection:
            while links := await audit_chain.links(connection, tenant_id, after=head.seq if head else 0, limit=_BATCH):
                for link in links:
                    yield _line(link)
                head = Head(tenant_id, links[-1].seq, links[-1].hash)
        if head is not None:
            yield signer.sign(head)


def _line(link: Link) -> str:
    said = {
        "object": "audit.entry",
        "hash": link.hash,
        "record": {**(link.record or {}), "seq": str(link.seq), "previous_hash": link.previous_hash},
        "values": {slot: value for slot, value in link.values.items() if value is not None},
        "salts": dict(link.salts),
        "erased": dict(link.erased),
    }
    return json.dumps(said, ensure_ascii=False, sort_keys=True)
