"""What is still to be told, to Temporal and to others outside, and what was."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from holdfast.domain.deliveries import DeliveryStatus
from holdfast.store.tables.columns import belongs_to, created_at, metadata, one_of, tenant

outbox = Table(
    "outbox",
    metadata,
    tenant(),
    Column("outbox_id", BigInteger, Identity(always=True), nullable=False),
    Column("kind", Text, nullable=False, comment="start, decided, freed, cancel or deliver"),
    Column("workflow_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("subject_id", Text, comment="the confirmation that was decided, or the delivery"),
    Column(
        "due_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=text("clock_timestamp() + '2 seconds'::interval"),
        comment="until then, whoever committed it is saying it",
    ),
    PrimaryKeyConstraint("tenant_id", "outbox_id"),
    Index("ix_outbox_due_at", "due_at"),
    Index("ix_outbox_run_id", "tenant_id", "run_id"),
)

# A trigger on `events` reads it, so that no writer of events can forget to.
subscriptions = Table(
    "subscriptions",
    metadata,
    tenant(),
    Column("target_id", Text, nullable=False, comment="the webhook, … that is told"),
    Column("kind", Text, nullable=False, comment="webhook or slack"),
    Column("conversation_id", Text, nullable=False, server_default="", comment="empty: every one"),
    Column("types", ARRAY(Text), nullable=False, comment="see holdfast/domain/deliveries.py"),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    PrimaryKeyConstraint("tenant_id", "target_id"),
    Index("ix_subscriptions_conversation_id", "tenant_id", "conversation_id"),
)

# Without foreign keys: a target that is deleted while an event is logged must not fail what the event records.
deliveries = Table(
    "deliveries",
    metadata,
    tenant(),
    Column("delivery_id", Text, nullable=False),
    Column("kind", Text, nullable=False, comment="webhook or slack"),
    Column("target_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("seq", Integer, nullable=False, comment="the event's number in its run's log"),
    Column("type", Text, nullable=False, comment="the event's"),
    Column("workflow_id", Text, nullable=False, comment="whose it is now: a replay has one of its own"),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default=text("0"), comment="since the last replay"),
    Column("replays", Integer, nullable=False, server_default=text("0")),
    Column("last_error", Text, comment="a few words, none of them the receiver's"),
    Column("next_attempt_at", DateTime(timezone=True)),
    created_at(),
    Column(
        "pending_since",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
        comment="from when its time counts: created, first tried, held back or replayed",
    ),
    Column("settled_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant_id", "delivery_id"),
    one_of("status", DeliveryStatus),
    Index("uq_deliveries_event", "tenant_id", "run_id", "seq", "target_id", unique=True),
    Index("ix_deliveries_target_id", "tenant_id", "target_id", "delivery_id"),
)

webhooks = Table(
    "webhooks",
    metadata,
    tenant(),
    Column("webhook_id", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False, comment="sealed; bound to the tenant and the webhook"),
    Column("secret_key_id", Text, nullable=False, comment="which of the payload keys opens it"),
    Column("old_secret", LargeBinary, comment="the one before, which signs too until old_until"),
    Column("old_secret_key_id", Text),
    Column("old_until", DateTime(timezone=True)),
    Column("disabled_why", Text, comment="null: it is told"),
    Column("created_by", Text, nullable=False),
    created_at(),
    PrimaryKeyConstraint("tenant_id", "webhook_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
)

slack_threads = Table(
    "slack_threads",
    metadata,
    tenant(),
    Column("team_id", Text, nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("thread_ts", Text, nullable=False, comment="the first message's"),
    Column("conversation_id", Text, nullable=False),
    created_at(),
    PrimaryKeyConstraint("tenant_id", "team_id", "channel_id", "thread_ts"),
    belongs_to("conversations", "conversation_id"),
    Index("uq_slack_threads_conversation_id", "tenant_id", "conversation_id", unique=True),
)

slack_posts = Table(
    "slack_posts",
    metadata,
    tenant(),
    Column("subject_id", Text, nullable=False, comment="a run: its reply; a confirmation: its card; …:reminder"),
    Column("post_key", Uuid, nullable=False, comment="what the message can be found by"),
    Column("attempted_at", DateTime(timezone=True), comment="null: it was surely not posted"),
    Column("ts", Text, comment="the message's, once it is known"),
    Column("shown", Text, comment="SHA-256 of what the message says"),
    Column("delivery_id", Text, nullable=False, comment="the delivery that is working on it"),
    Column("claimed_until", DateTime(timezone=True), nullable=False),
    created_at(),
    PrimaryKeyConstraint("tenant_id", "subject_id"),
)
