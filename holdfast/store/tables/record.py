"""What happened: the audit log, and the event logs of runs."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Identity,
    Index,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from holdfast.store.tables.columns import belongs_to, created_at, metadata, tenant

audit = Table(
    "audit",
    metadata,
    tenant(),
    Column("audit_id", BigInteger, Identity(always=True), nullable=False),
    Column("kind", Text, nullable=False, comment="see holdfast/domain/audit.py"),
    Column("outcome", Text, nullable=False),
    Column("run_id", Text, comment="null: of no run"),
    Column("step", Integer),
    Column("subject_id", Text, comment="the message, tool call, confirmation, … it is about"),
    Column("tool", Text),
    Column("person", Text, comment="who did it, or decided"),
    Column("alias", Text),
    Column("model", Text),
    Column("deployment", Text),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("cost_usd", Numeric(18, 9)),
    Column("latency_ms", Integer),
    Column("detail", Text, comment="why, for a failure or a fallback; never content"),
    Column("purpose", Text, comment="what a model call by itself was for, as its caller said"),
    Column("usage_estimated", Boolean),
    Column("first_token_ms", Integer),
    Column("via", Text, comment="the way it came, such as api or chat"),
    Column("attempt", Integer, comment="which dispatch of a tool call"),
    Column("digests", JSONB, nullable=False, server_default=text("'{}'::jsonb"), comment="of what may be erased"),
    Column("salts", JSONB, nullable=False, server_default=text("'{}'::jsonb"), comment="of the digests, till erased"),
    Column("erased", JSONB, nullable=False, server_default=text("'{}'::jsonb"), comment="by which erasure"),
    created_at(),
    PrimaryKeyConstraint("tenant_id", "audit_id"),
    belongs_to("runs", "run_id"),
    Index("ix_audit_run_id", "tenant_id", "run_id", "kind"),
    Index("ix_audit_subject_id", "tenant_id", "subject_id"),
)

# Filled by a trigger when a transaction commits that has appended to the log.
audit_chain = Table(
    "audit_chain",
    metadata,
    tenant(),
    Column("seq", BigInteger, nullable=False, comment="counts the tenant's entries from 1, without a gap"),
    Column("audit_id", BigInteger, nullable=False),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False, comment="SHA-256 of the record: see holdfast_audit_record"),
    PrimaryKeyConstraint("tenant_id", "seq"),
    Index("uq_audit_chain_audit_id", "tenant_id", "audit_id", unique=True),
)

# Without foreign keys, here and in `deltas`: a row is written by the statement that counts up its run's `last_seq`.
events = Table(
    "events",
    metadata,
    tenant(),
    Column("run_id", Text, nullable=False),
    Column("seq", Integer, nullable=False, comment="counts what happened in the run from 1"),
    Column("type", Text, nullable=False, comment="see holdfast/domain/events.py"),
    # JSON and not JSONB: arguments stay in the order of the tool's signature, and any text of a model can be held.
    Column("data", JSON, nullable=False),
    created_at(),
    PrimaryKeyConstraint("tenant_id", "run_id", "seq"),
)

# Unlogged: a crash of PostgreSQL empties it. The numbers are of the same sequence as those of `events`.
deltas = Table(
    "deltas",
    metadata,
    tenant(),
    Column("run_id", Text, nullable=False),
    Column("seq", Integer, nullable=False, comment="counts what happened in the run from 1"),
    Column("step", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("text", Text, nullable=False),
    created_at(),
    PrimaryKeyConstraint("tenant_id", "run_id", "seq"),
    prefixes=["UNLOGGED"],
)
