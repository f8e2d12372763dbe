"""What we post in Slack: a run's reply, a confirmation's card, a reminder of it. Each is posted once.

Slack has no idempotency key, so this is done around it: the post's row, with a key that the message will carry, is
committed before Slack is called, and `ts` after. Whoever finds a row that was attempted and has no `ts` looks in the
thread for the key before posting again. What Slack itself refused was not posted, and is not looked for.

Whoever works on a post has claimed it: several deliveries may be about one card, and what is shown last must be what is
true. A delivery that is tried again takes over its own claim, that of a worker that died; another's runs out. A worker
that was taken for dead and was not finds that the post was attempted since it looked, and leaves it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_CLAIM = text("""
INSERT INTO slack_posts (tenant_id, subject_id, post_key, delivery_id, claimed_until)
VALUES (:tenant_id, :subject_id, gen_random_uuid(), :delivery_id, clock_timestamp() + CAST(:claimed_for AS interval))
ON CONFLICT (tenant_id, subject_id) DO UPDATE
SET delivery_id = excluded.delivery_id, claimed_until = excluded.claimed_until
WHERE slack_posts.delivery_id = excluded.delivery_id OR slack_posts.claimed_until < clock_timestamp()
RETURNING CAST(post_key AS text), created_at, attempted_at, ts, shown,
          extract(epoch FROM clock_timestamp() - attempted_at) AS attempted_s_ago
""")

_OWN = "tenant_id = :tenant_id AND subject_id = :subject_id AND delivery_id = :delivery_id"

_ATTEMPT = text(f"""
UPDATE slack_posts SET attempted_at = clock_timestamp()
WHERE {_OWN} AND attempted_at IS NOT DISTINCT FROM CAST(:seen AS timestamptz) AND ts IS NULL
RETURNING subject_id
""")
_REFUSED = text(f"UPDATE slack_posts SET attempted_at = NULL WHERE {_OWN}")
_SHOWN = text(f"UPDATE slack_posts SET ts = :ts, shown = :shown WHERE {_OWN}")
_STANDS = text("""
SELECT ts, attempted_at IS NOT NULL AS is_attempted FROM slack_posts
WHERE tenant_id = :tenant_id AND subject_id = :subject_id
""")
_RELEASE = text(f"UPDATE slack_posts SET claimed_until = '-infinity' WHERE {_OWN}")


@dataclass(frozen=True)
class Claim:
    """Who works on a post: a delivery, on that of a run or a confirmation."""

    tenant_id: str
    subject_id: str
    delivery_id: str


@dataclass(frozen=True)
class Post:
    """A post as it stands. `attempted_at`: the last attempt, if that may have been one.

    `ts` None: nobody knows of a message. `shown`: the digest of what it says.
    """

    post_key: str
    created_at: datetime
    attempted_at: datetime | None
    attempted_s_ago: float | None
    ts: str | None
    shown: str | None


async def claim(connection: AsyncConnection, own: Claim, claimed_for: timedelta) -> Post | None:
    """Claim a post, which is new, or as somebody left it. None: another is working on it."""
    values: dict[str, Any] = {**vars(own), "claimed_for": claimed_for}
    row = (await connection.execute(_CLAIM, values)).one_or_none()
    if row is None:
        return None
    ago = None if row.attempted_s_ago is None else float(row.attempted_s_ago)
    return Post(row.post_key, row.created_at, row.attempted_at, ago, row.ts, row.shown)


async def attempt(connection: AsyncConnection, own: Claim, post: Post) -> bool:
    """Take note that it is about to be posted. False: the claim is another's, or it was attempted since."""
    return (await connection.execute(_ATTEMPT, {**vars(own), "seen": post.attempted_at})).one_or_none() is not None


async def refused(connection: AsyncConnection, own: Claim) -> None:
    """Take note that Slack did not take it."""
    await connection.execute(_REFUSED, vars(own))


async def shown(connection: AsyncConnection, own: Claim, ts: str, what: str | None) -> None:
    """Take note of the message, and of what it says; None: nobody knows which state of it was posted."""
    await connection.execute(_SHOWN, {**vars(own), "ts": ts, "shown": what})


async def shown_at(
    connection: AsyncConnection, tenant_id: str, subject_id: str, otherwise: datetime
) -> datetime | None:
    """Since when people can have seen a post, by Slack's clock; `otherwise`, where nobody knows yet whether they can.

    None: it was not posted.
    """
    row = (await connection.execute(_STANDS, {"tenant_id": tenant_id, "subject_id": subject_id})).one_or_none()
    if row is not None and row.ts is not None:
        return datetime.fromtimestamp(float(row.ts), UTC)
    return otherwise if row is not None and row.is_attempted else None


async def release(connection: AsyncConnection, own: Claim) -> None:
    """Let others work on it."""
    await connection.execute(_RELEASE, vars(own))
