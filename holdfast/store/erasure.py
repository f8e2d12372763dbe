"""Erasing what was said, and names: by the tables' owner, since the application can change no record.

Ids, states, times and counts stay. The runs whose content goes are listed and locked first, so that nobody can add a
row to them either: whoever else changes something of theirs has done so before, or does it after. In the audit log a
value goes with its salt, and the row says which erasure took it.
"""

from datetime import timedelta

from sqlalchemy import Interval, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.audit import PSEUDONYM
from holdfast.secrecy.erased_keys import ERASED_KEY
from holdfast.store.tables.runs import OPEN_STATES

#: Every column that names a person, beside the one of `audit`. Rows of a run that is open are left, where the table has
#: a `run_id`.
NAMES = {
    "runs": ("requested_by", "sent_by", "cancelled_by"),
    "messages": ("sender",),
    "confirmations": ("requested_by", "sent_by", "decided_by"),
}

#: The same, of no run: only where no run is left.
NAMES_OF_NO_RUN = {
    "api_keys": ("person", "created_by"),
    "provider_keys": ("created_by",),
    "switches": ("thrown_by",),
    "webhooks": ("created_by",),
}

#: What is a name and nothing else: the row goes.
LINKS = {"identities": ("principal",)}

#: What stands in place of a text that can't be null.
ERASED = "[erased]"

_IS_OPEN = f"status IN {OPEN_STATES}"

# `names`: under which a person is known; null: everybody's goes.
_ALL = "CAST(:names AS text[]) IS NULL"
_NAMED = "= ANY(CAST(:names AS text[]))"

_CONVERSATIONS = f"""
r.conversation_id IN (
  SELECT conversation_id FROM runs WHERE tenant_id = :tenant_id AND requested_by {_NAMED}
)"""
# `own`: whether the message that the run answers is the person's, or everybody's content goes.
_LISTED = text(f"""
CREATE TEMPORARY TABLE erasing ON COMMIT DROP AS
SELECT r.run_id, {_ALL} OR r.requested_by {_NAMED} AS own
FROM runs r
WHERE r.tenant_id = :tenant_id AND NOT ({_IS_OPEN}) AND ({_ALL} OR {_CONVERSATIONS})
  AND (CAST(:older AS interval) IS NULL OR r.completed_at < clock_timestamp() - CAST(:older AS interval))
ORDER BY r.run_id FOR UPDATE
""").bindparams(bindparam("older", type_=Interval))

# Also those that the person's key sent, or in which they have decided: until they end, it counts whose word it was.
_COUNT_OPEN = text(f"""
SELECT count(*) FROM runs r WHERE r.tenant_id = :tenant_id AND {_IS_OPEN} AND (
  {_ALL} OR r.sent_by {_NAMED} OR {_CONVERSATIONS} OR EXISTS (
    SELECT FROM confirmations c WHERE c.tenant_id = :tenant_id AND c.run_id = r.run_id AND c.decided_by {_NAMED}
  )
)
""")

_OF_ERASING = "tenant_id = :tenant_id AND run_id IN (SELECT run_id FROM erasing)"

# A fingerprint is of a body that is not erased yet, also if its text looks so.
_CONTENT = (
    f"""
UPDATE messages m SET text = :erased, fingerprint = NULL, metadata = '{{}}', history = NULL, idempotency_key =
    '{ERASED_KEY}' || encode(sha256(convert_to(CAST(:key_secret AS text) || idempotency_key, 'UTF8')), 'hex')
FROM erasing e
WHERE m.tenant_id = :tenant_id AND m.run_id = e.run_id AND (m.role <> 'user' OR e.own)
  AND (m.text <> :erased OR m.fingerprint IS NOT NULL)
""",
    f"UPDATE steps SET text = '' WHERE {_OF_ERASING}",
    f"UPDATE runs SET client_tools = NULL WHERE {_OF_ERASING} AND client_tools IS NOT NULL",
    f"DELETE FROM events WHERE {_OF_ERASING}",
    f"DELETE FROM deltas WHERE {_OF_ERASING}",
    f"""
UPDATE tool_calls
SET arguments_raw = '{{}}', arguments = NULL, arguments_digest = NULL,
    result = CASE WHEN result IS NOT NULL THEN to_json(CAST(:erased AS text))::text END,
    error = CASE WHEN error IS NOT NULL THEN CAST(:erased AS text) END
WHERE {_OF_ERASING}
""",
    f"""
UPDATE confirmations
SET arguments = '{{}}', arguments_digest = '', reason = NULL, edited_arguments = NULL, edited_digest = NULL
WHERE {_OF_ERASING}
""",
    # The digest of a card could be tried out. A reminder of a confirmation has `:reminder` behind its id.
    f"""
UPDATE slack_posts SET shown = NULL
WHERE tenant_id = :tenant_id AND shown IS NOT NULL AND split_part(subject_id, ':', 1) IN (
  SELECT run_id FROM erasing UNION ALL SELECT confirmation_id FROM confirmations WHERE {_OF_ERASING}
)
""",
)

# Of an accepted message of somebody else the text stays, and so must what is committed of it.
_RECORD = text("""
UPDATE audit a
SET detail = NULL, purpose = NULL, salts = a.salts - taken.slots,
    erased = a.erased || (SELECT jsonb_object_agg(slot, CAST(:erasure_id AS text)) FROM unnest(taken.slots) slot)
FROM (
  SELECT b.audit_id, array_agg(slot) AS slots
  FROM audit b JOIN erasing e ON e.run_id = b.run_id CROSS JOIN LATERAL jsonb_object_keys(b.salts) slot
  WHERE b.tenant_id = :tenant_id AND slot <> 'person' AND (e.own OR b.kind <> 'message' OR b.outcome <> 'accepted')
  GROUP BY b.audit_id
) taken
WHERE a.tenant_id = :tenant_id AND a.audit_id = taken.audit_id
""")

_PSEUDONYM_DIGITS = 16
_PSEUDONYM = (
    f"'{PSEUDONYM}' || left(encode(sha256(convert_to(:secret || {{name}}, 'UTF8')), 'hex'), {_PSEUDONYM_DIGITS})"
)
_IS_NAMED = (
    f"({{name}} {_NAMED} OR {_ALL} AND {{name}} NOT LIKE '{PSEUDONYM}{'_' * _PSEUDONYM_DIGITS}' AND {{name}} <> '')"
)
_OF_NO_OPEN_RUN = (
    f"(run_id IS NULL OR run_id NOT IN (SELECT run_id FROM runs WHERE tenant_id = :tenant_id AND {_IS_OPEN}))"
)

# Who has erased something stays on record.
_NAMES_ON_RECORD = text(f"""
UPDATE audit
SET person = {_PSEUDONYM.format(name="person")}, salts = salts - 'person',
    erased = erased || jsonb_build_object('person', CAST(:erasure_id AS text))
WHERE tenant_id = :tenant_id AND salts ? 'person' AND kind <> 'erasure' AND {_IS_NAMED.format(name="person")}
  AND {_OF_NO_OPEN_RUN}
""")


_UNLINK = text(f"""
DELETE FROM identities
WHERE tenant_id = :tenant_id AND ({_ALL} OR principal {_NAMED} OR kind || ':' || subject {_NAMED})
""")

#: What is the tenant's own, and neither said nor a name: keys of providers; webhooks, and what they are to be told.
_FORGET = tuple(
    text(f"DELETE FROM {rows} AND {_ALL}")
    for rows in (
        "provider_keys WHERE tenant_id = :tenant_id",
        "webhooks WHERE tenant_id = :tenant_id",
        "subscriptions WHERE tenant_id = :tenant_id AND kind = 'webhook'",
        "deliveries WHERE tenant_id = :tenant_id AND kind = 'webhook'",
    )
)


async def list_runs(
    connection: AsyncConnection, tenant_id: str, *, names: list[str] | None, older_than: timedelta | None
) -> tuple[int, int]:
    """List and lock the runs whose content is to go, until the transaction ends; answers with how many, and how many of
    the same are open and therefore left.

    Args:
        connection: the owner's.
        tenant_id: whose runs.
        names: only those of conversations in which the person wrote who is known by these; None: everybody's.
        older_than: only those that ended so long ago.
    """
    values = {"tenant_id": tenant_id, "names": names}
    listed = (await connection.execute(_LISTED, {**values, "older": older_than})).rowcount
    return listed, int(await connection.scalar(_COUNT_OPEN, values) or 0)


async def erase_content(
    connection: AsyncConnection, tenant_id: str, erasure_id: str, *, key_secret: str
) -> tuple[int, int]:
    """Erase what was said in the listed runs; answers with how many messages and entries of the audit log.

    `key_secret`: behind which idempotency keys are hashed, so that they are known when they come again.
    """
    values = {"tenant_id": tenant_id, "erased": ERASED, "key_secret": key_secret}
    changed = [(await connection.execute(text(statement), values)).rowcount for statement in _CONTENT]
    entries = await connection.execute(_RECORD, {"tenant_id": tenant_id, "erasure_id": erasure_id})
    return changed[0], entries.rowcount


async def erase_names(
    connection: AsyncConnection,
    tenant_id: str,
    erasure_id: str,
    *,
    names: list[str] | None,
    secret: str,
    is_any_left: bool,
) -> int:
    """Put a pseudonym in place of some names, or of all; answers with how often. Each name has its own, made with a
    secret that is then forgotten: nobody can try names."""
    values = {"tenant_id": tenant_id, "names": names, "secret": secret}
    changed = 0
    for table, columns in (NAMES if is_any_left else {**NAMES, **NAMES_OF_NO_RUN}).items():
        where = "" if table in NAMES_OF_NO_RUN else f" AND {_OF_NO_OPEN_RUN}"
        for name in columns:
            statement = text(
                f"UPDATE {table} SET {name} = {_PSEUDONYM.format(name=name)}"
                f" WHERE tenant_id = :tenant_id AND {_IS_NAMED.format(name=name)}{where}"
            )
            changed += (await connection.execute(statement, values)).rowcount
    if not is_any_left:
        changed += (await connection.execute(_UNLINK, values)).rowcount
        for forget in _FORGET:
            await connection.execute(forget, {"tenant_id": tenant_id, "names": names})
    on_record = await connection.execute(_NAMES_ON_RECORD, {**values, "erasure_id": erasure_id})
    return changed + on_record.rowcount
