"""What a tenant has: who acts for it, its agents, and what bounds what they do."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from holdfast.store.tables.columns import created_at, metadata, tenant

tenants = Table(
    "tenants",
    metadata,
    tenant(),
    created_at(),
    PrimaryKeyConstraint("tenant_id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    tenant(),
    Column("key_id", Text, nullable=False),
    Column("key_hash", LargeBinary, nullable=False, comment="HMAC-SHA256 of the key under the pepper"),
    Column("person", Text, nullable=False, comment="who acts with this key"),
    Column("roles", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    created_at(),
    Column("created_by", Text, comment="who made it; null: nobody knows any more"),
    Column("expires_at", DateTime(timezone=True), comment="null: never"),
    Column("revoked_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True), comment="to a minute"),
    PrimaryKeyConstraint("tenant_id", "key_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    Index("ix_api_keys_key_hash", "key_hash"),
)

identities = Table(
    "identities",
    metadata,
    tenant(),
    Column("kind", Text, nullable=False, comment="key, oidc or slack"),
    Column("subject", Text, nullable=False, comment="the key's id, the token's subject, the account"),
    Column("principal", Text, nullable=False, comment="who acts with it"),
    Column(
        "roles",
        ARRAY(Text),
        nullable=False,
        server_default=text("'{}'"),
        comment="of an account of Slack: a key and a token bring their own",
    ),
    created_at(),
    PrimaryKeyConstraint("tenant_id", "kind", "subject"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    CheckConstraint("kind IN ('key', 'oidc', 'slack')", name="kind_known"),
    Index("ix_identities_principal", "tenant_id", "principal"),
)

provider_keys = Table(
    "provider_keys",
    metadata,
    tenant(),
    Column("provider", Text, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False, comment="bound to the tenant and the provider"),
    Column("key_id", Text, nullable=False, comment="which of the payload keys opens it"),
    Column("hint", Text, nullable=False, comment="its last characters, to tell it from another"),
    Column("created_by", Text, nullable=False),
    created_at(),
    PrimaryKeyConstraint("tenant_id", "provider"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
)

agents = Table(
    "agents",
    metadata,
    tenant(),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False, comment="from 1; a run keeps the version it was accepted with"),
    Column("spec", JSONB, nullable=False, comment="an AgentSpec"),
    created_at(),
    PrimaryKeyConstraint("tenant_id", "name", "version"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
)

budgets = Table(
    "budgets",
    metadata,
    tenant(),
    Column("period", Text, nullable=False, comment="day, month or total"),
    Column("limit_usd", Numeric(18, 9), nullable=False),
    Column("raise_by_usd", Numeric(18, 9), comment="null: nobody is asked to raise the limit"),
    Column("approvers", ARRAY(Text), nullable=False, server_default=text("'{}'"), comment="roles; none: anybody"),
    Column("spent_usd", Numeric(18, 9), nullable=False, server_default=text("0"), comment="settled since period_began"),
    Column("period_began", DateTime(timezone=True), nullable=False, server_default=text("'-infinity'")),
    created_at(),
    PrimaryKeyConstraint("tenant_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    CheckConstraint("period IN ('day', 'month', 'total')", name="period_known"),
    CheckConstraint("limit_usd >= 0 AND raise_by_usd > 0", name="amounts_make_sense"),
)

# Without a foreign key to the run: what is reserved is gone when its run has ended, and checking the key would lock the
# run's row after the budget's.
reservations = Table(
    "reservations",
    metadata,
    tenant(),
    Column("reservation_id", Text, nullable=False, comment="of a run: its id and the step"),
    Column("run_id", Text, comment="null: of a model call by itself"),
    Column("amount_usd", Numeric(18, 9), nullable=False),
    created_at(),
    PrimaryKeyConstraint("tenant_id", "reservation_id"),
    Index("ix_reservations_run_id", "tenant_id", "run_id"),
)

# The row of the tenant "*" is the switch for everything: each tenant sees it, and only the tables' owner writes it.
switches = Table(
    "switches",
    metadata,
    tenant(),
    Column("agent", Text, nullable=False, comment="empty: the whole tenant"),
    Column("reason", Text, nullable=False),
    Column("thrown_by", Text, nullable=False),
    Column("thrown_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    PrimaryKeyConstraint("tenant_id", "agent"),
)
