"""Webhooks: addresses that a tenant has told of events, each with a secret that signs, sealed.

Which events a webhook is told, and whether it is, stands in its subscription, which the trigger on `events` reads.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_SHOWN = """
SELECT w.*, s.types, coalesce(w.old_until > clock_timestamp(), false) AS old_signs
FROM webhooks w JOIN subscriptions s ON s.tenant_id = w.tenant_id AND s.target_id = w.webhook_id
WHERE w.tenant_id = :tenant_id
"""
_FIND = text(f"{_SHOWN} AND w.webhook_id = :webhook_id")

_PAGE = text(f"""
{_SHOWN} AND (CAST(:after AS text) IS NULL OR w.webhook_id < :after) ORDER BY w.webhook_id DESC LIMIT :limit
""")

# Nothing else can be locked: the first has no row beside it, and the tenant's own is not ours to change.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('webhooks of ' || CAST(:tenant_id AS text), 0))")

_COUNT = text("SELECT count(*) FROM webhooks WHERE tenant_id = :tenant_id")

_ADD = text("""
INSERT INTO webhooks (tenant_id, webhook_id, url, secret, secret_key_id, created_by)
VALUES (:tenant_id, :webhook_id, :url, :secret, :secret_key_id, :created_by)
""")

_CHANGE = text("""
UPDATE webhooks SET url = :url, disabled_why = :disabled_why WHERE tenant_id = :tenant_id AND webhook_id = :webhook_id
RETURNING webhook_id
""")

# Not, if it has another address since.
_DISABLE = text("""
UPDATE webhooks SET disabled_why = :why
WHERE tenant_id = :tenant_id AND webhook_id = :webhook_id AND url = :url AND disabled_why IS NULL
RETURNING webhook_id
""")

_ROTATE = text("""
UPDATE webhooks
SET old_secret = secret, old_secret_key_id = secret_key_id,
    old_until = clock_timestamp() + CAST(:grace_period AS interval),
    secret = :secret, secret_key_id = :secret_key_id
WHERE tenant_id = :tenant_id AND webhook_id = :webhook_id
RETURNING webhook_id
""")

_REMOVE = text("DELETE FROM webhooks WHERE tenant_id = :tenant_id AND webhook_id = :webhook_id RETURNING webhook_id")


@dataclass(frozen=True)
class SealedSecret:
    """A secret as it is kept. `key_id`: what opens it."""

    ciphertext: bytes
    key_id: str


@dataclass(frozen=True)
class Webhook:
    """An address that is told of events of some types.

    Args:
        disabled_why: it is not told; None: it is.
        old_secret: the secret before, which signs too until `old_until`; None: it does not any more.
    """

    webhook_id: str
    url: str
    types: tuple[str, ...]
    disabled_why: str | None
    secret: SealedSecret
    old_secret: SealedSecret | None
    old_until: datetime | None
    created_by: str
    created_at: datetime

    @classmethod
    def from_row(cls, row: Any) -> "Webhook":
        old = SealedSecret(row.old_secret, row.old_secret_key_id) if row.old_signs else None
        return cls(
            webhook_id=row.webhook_id,
            url=row.url,
            types=tuple(row.types),
            disabled_why=row.disabled_why,
            secret=SealedSecret(row.secret, row.secret_key_id),
            old_secret=old,
            old_until=None if old is None else row.old_until,
            created_by=row.created_by,
            created_at=row.created_at,
        )


async def find(connection: AsyncConnection, tenant_id: str, webhook_id: str) -> Webhook | None:
    """A webhook; None: there is none."""
    row = (await connection.execute(_FIND, {"tenant_id": tenant_id, "webhook_id": webhook_id})).one_or_none()
    return None if row is None else Webhook.from_row(row)


async def page(connection: AsyncConnection, tenant_id: str, *, after: str | None, limit: int) -> list[Webhook]:
    """Webhooks, newest first."""
    rows = await connection.execute(_PAGE, {"tenant_id": tenant_id, "after": after, "limit": limit})
    return [Webhook.from_row(row) for row in rows]


async def count(connection: AsyncConnection, tenant_id: str) -> int:
    """How many a tenant has; nobody else adds one before this transaction ends."""
    await connection.execute(_LOCK, {"tenant_id": tenant_id})
    return int(await connection.scalar(_COUNT, {"tenant_id": tenant_id}) or 0)


async def add(
    connection: AsyncConnection, tenant_id: str, webhook_id: str, url: str, secret: SealedSecret, created_by: str
) -> None:
    """Add a webhook; its subscription is to follow in the same transaction."""
    values = {"tenant_id": tenant_id, "webhook_id": webhook_id, "url": url, "created_by": created_by}
    await connection.execute(_ADD, {**values, "secret": secret.ciphertext, "secret_key_id": secret.key_id})


async def change(
    connection: AsyncConnection, tenant_id: str, webhook_id: str, url: str, disabled_why: str | None
) -> bool:
    """Change where a webhook goes, and whether it is told. False: there is none."""
    values = {"tenant_id": tenant_id, "webhook_id": webhook_id, "url": url, "disabled_why": disabled_why}
    return (await connection.execute(_CHANGE, values)).one_or_none() is not None


async def disable(connection: AsyncConnection, tenant_id: str, webhook_id: str, url: str, why: str) -> bool:
    """Disable a webhook as it was when it was told at this URL. False: it is another since, or disabled."""
    values = {"tenant_id": tenant_id, "webhook_id": webhook_id, "url": url, "why": why}
    return (await connection.execute(_DISABLE, values)).one_or_none() is not None


async def rotate(
    connection: AsyncConnection, tenant_id: str, webhook_id: str, secret: SealedSecret, grace_period: timedelta
) -> bool:
    """Replace a webhook's secret, which still signs too for the grace period. False: there is no such webhook."""
    values: dict[str, Any] = {"tenant_id": tenant_id, "webhook_id": webhook_id, "grace_period": grace_period}
    values |= {"secret": secret.ciphertext, "secret_key_id": secret.key_id}
    return (await connection.execute(_ROTATE, values)).one_or_none() is not None


async def remove(connection: AsyncConnection, tenant_id: str, webhook_id: str) -> bool:
    """Remove a webhook. False: there is none."""
    values = {"tenant_id": tenant_id, "webhook_id": webhook_id}
    return (await connection.execute(_REMOVE, values)).one_or_none() is not None
