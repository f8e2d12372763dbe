"""The hash chain of the audit log: its entries as they are read, its links as they are verified, its heads.

The chain is filled by a trigger at commit (see migration 0005), so that an entry and its link are there together or not
at all. The application's role can read and append, nothing else.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.audit import ERASABLE, UNHASHED, AuditEntry, AuditFilter, Head, Link
from holdfast.store.tables.record import audit, audit_chain

# The record is made here and not by the function that made the hash: whoever can change a row could change that too.
_LINKS = text("""
SELECT c.seq, c.audit_id, c.previous_hash, c.hash, a.person, a.detail, a.purpose, a.digests, a.salts, a.erased,
       (SELECT jsonb_object_agg(key, value) FROM jsonb_each_text(to_jsonb(a) - CAST(:unhashed AS text[]))
        WHERE value IS NOT NULL) AS record
FROM audit_chain c LEFT JOIN audit a ON a.tenant_id = c.tenant_id AND a.audit_id = c.audit_id
WHERE c.tenant_id = :tenant_id AND c.seq > :after
ORDER BY c.seq LIMIT :limit
""")

_IN_UTC = text("SELECT set_config('TimeZone', 'UTC', true)")

_UNCHAINED = text("""
SELECT a.audit_id FROM audit a
WHERE a.tenant_id = :tenant_id
  AND NOT EXISTS (SELECT FROM audit_chain c WHERE c.tenant_id = a.tenant_id AND c.audit_id = a.audit_id)
ORDER BY a.audit_id
""")

# From tenant to tenant by the index: their entries are not read.
_HEADS = text("""
WITH RECURSIVE tenant AS (
  SELECT min(tenant_id) AS tenant_id FROM audit_chain
  UNION ALL
  SELECT (SELECT min(c.tenant_id) FROM audit_chain c WHERE c.tenant_id > tenant.tenant_id)
  FROM tenant WHERE tenant.tenant_id IS NOT NULL
)
SELECT tenant.tenant_id, head.seq, head.hash
FROM tenant CROSS JOIN LATERAL (
  SELECT c.seq, c.hash FROM audit_chain c WHERE c.tenant_id = tenant.tenant_id ORDER BY c.seq DESC LIMIT 1
) head
ORDER BY tenant.tenant_id
""")

_AT = text("""
SELECT asked.tenant_id, asked.seq, c.hash
FROM unnest(CAST(:tenant_ids AS text[]), CAST(:seqs AS bigint[])) AS asked (tenant_id, seq)
JOIN audit_chain c ON c.tenant_id = asked.tenant_id AND c.seq = asked.seq
""")

_SUPERSEDED_BY = text("""
SELECT a.subject_id, slot, max(a.audit_id) AS audit_id
FROM audit a CROSS JOIN LATERAL jsonb_object_keys(a.digests) AS slot
WHERE a.tenant_id = :tenant_id AND a.subject_id = ANY(:subject_ids)
GROUP BY a.subject_id, slot
""")


_TAKEN = text("""
SELECT c.seq, each_slot.key AS slot
FROM audit_chain c JOIN audit a ON a.tenant_id = c.tenant_id AND a.audit_id = c.audit_id
CROSS JOIN LATERAL jsonb_each_text(a.erased) each_slot
WHERE c.tenant_id = :tenant_id AND each_slot.value = :erasure_id
ORDER BY c.seq, each_slot.key COLLATE "C"
""")


async def page(
    connection: AsyncConnection, tenant_id: str, wanted: AuditFilter, *, after: int, limit: int
) -> list[AuditEntry]:
    """A page of entries, oldest first, from the one after number `after` on."""
    joined = audit_chain.join(
        audit, (audit.c.tenant_id == audit_chain.c.tenant_id) & (audit.c.audit_id == audit_chain.c.audit_id)
    )
    query = (
        select(audit, audit_chain.c.seq, audit_chain.c.hash)
        .select_from(joined)
        .where(audit_chain.c.tenant_id == tenant_id, audit_chain.c.seq > after)
        .order_by(audit_chain.c.seq)
        .limit(limit)
    )
    for name in ("kind", "outcome", "run_id", "subject_id", "person"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(audit.c[name] == value)
    if wanted.since is not None:
        query = query.where(audit.c.created_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(audit.c.created_at < wanted.until)
    return [_entry(row) for row in await connection.execute(query)]


async def links(connection: AsyncConnection, tenant_id: str, *, after: int, limit: int) -> list[Link]:
    """The chain's links in order, from the one after number `after` on, each with its entry."""
    await connection.execute(_IN_UTC)
    values = {"tenant_id": tenant_id, "after": after, "limit": limit, "unhashed": list(UNHASHED)}
    return [_link(row) for row in await connection.execute(_LINKS, values)]


async def unchained(connection: AsyncConnection, tenant_id: str) -> AsyncIterator[int]:
    """The rows of the log that are in no chain."""
    async for row in await connection.stream(_UNCHAINED, {"tenant_id": tenant_id}):
        yield row.audit_id


async def newest_commitments(
    connection: AsyncConnection, tenant_id: str, subject_ids: Sequence[str]
) -> dict[tuple[str, str], int]:
    """For each subject and slot the newest row that commits to it."""
    found = await connection.execute(_SUPERSEDED_BY, {"tenant_id": tenant_id, "subject_ids": list(subject_ids)})
    return {(row.subject_id, row.slot): row.audit_id for row in found}


async def taken(connection: AsyncConnection, tenant_id: str, erasure_id: str) -> AsyncIterator[tuple[int, str]]:
    """What an erasure took of the log: numbers of entries, and of each what, in order."""
    async for row in await connection.stream(_TAKEN, {"tenant_id": tenant_id, "erasure_id": erasure_id}):
        yield row.seq, row.slot


async def heads(connection: AsyncConnection) -> list[Head]:
    """The head of every chain that the transaction may see: see `Database.heads`."""
    return [Head(row.tenant_id, row.seq, row.hash) for row in await connection.execute(_HEADS)]


async def at(connection: AsyncConnection, asked: Sequence[Head]) -> dict[tuple[str, int], str]:
    """The hashes that stand where these heads say, by tenant and number; one that is not there is left out."""
    values = {"tenant_ids": [head.tenant_id for head in asked], "seqs": [head.seq for head in asked]}
    return {(row.tenant_id, row.seq): row.hash for row in await connection.execute(_AT, values)}


def _link(row: Any) -> Link:
    return Link(
        seq=row.seq,
        audit_id=row.audit_id,
        previous_hash=row.previous_hash,
        hash=row.hash,
        record=row.record,
        values={slot: getattr(row, slot) for slot in ERASABLE},
        digests=row.digests or {},
        salts=row.salts or {},
        erased=row.erased or {},
    )


def _entry(row: Any) -> AuditEntry:
    return AuditEntry(**{name: getattr(row, name) for name in AuditEntry.__dataclass_fields__})
