"""The schema on one page. Every table has `tenant_id`, first in its primary key; `migrations/` makes it so.

Content and record live here; progress lives in Temporal. Row-level security (see `migrations/versions`) lets a
transaction see the rows of the tenant it names, and fails a query in a transaction that names none.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

from holdfast.domain.confirmations import ConfirmationStatus
from holdfast.domain.deliveries import DeliveryStatus
from holdfast.domain.runs import OPEN, RunStatus
from holdfast.domain.tools import ToolCallStatus

#: The states of a run that has not ended, as SQL lists them.
OPEN_STATES = f"({', '.join(repr(status.value) for status in RunStatus if status in OPEN)})"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _tenant() -> Column[str]:
    return Column("tenant_id", Text, nullable=False)


def _created_at() -> Column[object]:
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())


def _one_of(
    column: str, values: type[RunStatus] | type[ToolCallStatus] | type[ConfirmationStatus] | type[DeliveryStatus]
) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def _belongs_to(table: str, column: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["tenant_id", column], [f"{table}.tenant_id", f"{table}.{column}"])


tenants = Table(
    "tenants",
    metadata,
    _tenant(),
    _created_at(),
    PrimaryKeyConstraint("tenant_id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    _tenant(),
    Column("key_id", Text, nullable=False),
    Column("key_hash", LargeBinary, nullable=False, comment="HMAC-SHA256 of the key under the pepper"),
    Column("person", Text, nullable=False, comment="who acts with this key"),
    Column("roles", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    _created_at(),
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
    _tenant(),
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
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "kind", "subject"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    CheckConstraint("kind IN ('key', 'oidc', 'slack')", name="kind_known"),
    Index("ix_identities_principal", "tenant_id", "principal"),
)

provider_keys = Table(
    "provider_keys",
    metadata,
    _tenant(),
    Column("provider", Text, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False, comment="bound to the tenant and the provider"),
    Column("key_id", Text, nullable=False, comment="which of the payload keys opens it"),
    Column("hint", Text, nullable=False, comment="its last characters, to tell it from another"),
    Column("created_by", Text, nullable=False),
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "provider"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
)

agents = Table(
    "agents",
    metadata,
    _tenant(),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False, comment="from 1; a run keeps the version it was accepted with"),
    Column("spec", JSONB, nullable=False, comment="an AgentSpec"),
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "name", "version"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
)

conversations = Table(
    "conversations",
    metadata,
    _tenant(),
    Column("conversation_id", Text, nullable=False),
    Column("last_position", Integer, nullable=False, comment="the position of the newest run"),
    Column("turn_run_id", Text, comment="the run that has the turn"),
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "conversation_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
)

runs = Table(
    "runs",
    metadata,
    _tenant(),
    Column("run_id", Text, nullable=False),
    Column("conversation_id", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("agent_version", Integer, nullable=False),
    Column("position", Integer, nullable=False, comment="place in the conversation, in order of arrival"),
    Column("status", Text, nullable=False, server_default="queued"),
    Column("degraded", Boolean, nullable=False, server_default=text("false")),
    Column("error", Text),
    Column("requested_by", Text, nullable=False, comment="who wrote the message, as its sender says"),
    Column("sent_by", Text, nullable=False, server_default="", comment="whose key the message came with"),
    Column("on_busy", Text, nullable=False, server_default="queue"),
    Column("merged_into", Text, comment="the run that answers this one's message"),
    Column("merged_at_step", Integer, comment="from which model call of that run on it is seen"),
    Column("cancelled_by", Text, comment="who asked for it to be stopped"),
    Column("client_tools", JSON, comment="each a ClientTool; null: the message brought none"),
    Column("last_seq", Integer, nullable=False, server_default=text("0"), comment="the number of its newest event"),
    Column(
        "stream_step",
        Integer,
        nullable=False,
        server_default=text("1"),
        comment="the model call whose text may be streamed",
    ),
    Column("stream_began", DateTime(timezone=True), comment="when the try that may stream it began"),
    Column(
        "stream_attempt",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="how many tries have streamed text",
    ),
    Column(
        "stream_is_open",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="text of the newest try was streamed, and neither completed nor taken back",
    ),
    _created_at(),
    Column("completed_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant_id", "run_id"),
    _belongs_to("conversations", "conversation_id"),
    _one_of("status", RunStatus),
    Index("ix_runs_conversation", "tenant_id", "conversation_id", "position", unique=True),
    Index("ix_runs_sent_by", "tenant_id", "sent_by", "run_id"),
    # What a kill switch stops is found among the runs of years.
    Index(
        "ix_runs_open",
        "tenant_id",
        "run_id",
        postgresql_where=text(f"status IN {OPEN_STATES}"),
    ),
)

messages = Table(
    "messages",
    metadata,
    _tenant(),
    Column("message_id", Text, nullable=False),
    Column("conversation_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("fingerprint", Text, comment="SHA-256 of the body that the key came with"),
    Column("sender", Text),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("history", Text, comment="SHA-256 of all that its client knew of the conversation, itself included"),
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "message_id"),
    _belongs_to("runs", "run_id"),
    # The promise that no message is accepted twice and none answered twice rests on these two.
    Index("uq_messages_idempotency_key", "tenant_id", "idempotency_key", unique=True),
    Index("uq_messages_run_role", "tenant_id", "run_id", "role", unique=True),
    Index("ix_messages_history", "tenant_id", "history", postgresql_where=text("history IS NOT NULL")),
)

steps = Table(
    "steps",
    metadata,
    _tenant(),
    Column("run_id", Text, nullable=False),
    Column("step", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("alias", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("deployment", Text, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("cost_usd", Numeric(18, 9), comment="null: no price is known"),
    Column("latency_ms", Integer, nullable=False),
    Column("usage_estimated", Boolean, nullable=False, server_default=text("false")),
    Column("attempts", JSONB, nullable=False, server_default=text("'[]'::jsonb"), comment="each an Attempt"),
    Column("first_token_ms", Integer, comment="null: the answer came whole"),
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "run_id", "step"),
    _belongs_to("runs", "run_id"),
)

tool_calls = Table(
    "tool_calls",
    metadata,
    _tenant(),
    Column("tool_call_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("step", Integer, nullable=False),
    Column("position", Integer, nullable=False, comment="place within the step, from 0"),
    Column("tool", Text, nullable=False),
    Column("arguments_raw", Text, nullable=False, comment="as the model wrote them"),
    Column("arguments", JSON, comment="validated; null when they don't fit the schema"),
    Column("arguments_digest", Text),
    Column("status", Text, nullable=False),
    Column("effect", Text, nullable=False),
    Column("idempotency", Text, nullable=False),
    Column("timeout_s", Float, nullable=False, server_default=text("60")),
    Column("max_attempts", Integer, nullable=False, server_default=text("1")),
    Column("rule", Text, nullable=False),
    Column("edited", Boolean, nullable=False, server_default=text("false"), comment="a person changed the arguments"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("result", Text, comment="JSON"),
    Column("error", Text),
    Column("by_client", Boolean, nullable=False, server_default=text("false"), comment="its client runs it"),
    _created_at(),
    Column("dispatched_at", DateTime(timezone=True)),
    Column("settled_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant_id", "tool_call_id"),
    _belongs_to("runs", "run_id"),
    _one_of("status", ToolCallStatus),
    Index("ix_tool_calls_status", "tenant_id", "status", "tool_call_id"),
    # What a client was handed, and has not answered yet, is closed by the next message of its conversation.
    Index(
        "ix_tool_calls_handed_over", "tenant_id", "run_id", postgresql_where=text("by_client AND status = 'approved'")
    ),
    Index("uq_tool_calls_step", "tenant_id", "run_id", "step", "position", unique=True),
)

confirmations = Table(
    "confirmations",
    metadata,
    _tenant(),
    Column("confirmation_id", Text, nullable=False),
    Column("kind", Text, nullable=False, server_default="call", comment="call, outcome or budget"),
    Column("tool_call_id", Text, comment="null: of kind budget, which is about a step"),
    Column("step", Integer, comment="the model call that a budget has no room for"),
    Column("attempt", Integer, nullable=False, server_default=text("0"), comment="the dispatch an outcome is asked of"),
    Column("run_id", Text, nullable=False),
    Column("conversation_id", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("tool", Text, nullable=False),
    # JSON and not JSONB: a person is shown the arguments in the order of the tool's signature.
    Column("arguments", JSON, nullable=False),
    Column("arguments_digest", Text, nullable=False),
    Column("arguments_schema", JSON, comment="what an edit must fit"),
    Column("rule", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("sent_by", Text, nullable=False, server_default=""),
    Column("approvers", ARRAY(Text), nullable=False, server_default=text("'{}'"), comment="roles; none: anybody"),
    Column("four_eyes", Boolean, nullable=False, server_default=text("false")),
    Column("deadline", DateTime(timezone=True), nullable=False),
    Column("on_deadline", Text, nullable=False),
    Column("remind_at", DateTime(timezone=True)),
    Column("reminded_at", DateTime(timezone=True)),
    Column("escalate", JSONB, comment="an Escalation, until it has happened and after"),
    Column("escalated_at", DateTime(timezone=True)),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("decision", Text),
    Column("decided_by", Text),
    Column("decided_via", Text),
    Column("decided_at", DateTime(timezone=True)),
    Column("decided_roles", ARRAY(Text), comment="of a token, those that counted; null: made with a key or an account"),
    Column("reason", Text),
    Column("edited_arguments", JSON, comment="what a person put in place of the arguments"),
    Column("edited_digest", Text),
    Column("used_at", DateTime(timezone=True), comment="when the approval was used up by a dispatch"),
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "confirmation_id"),
    _belongs_to("tool_calls", "tool_call_id"),
    _one_of("status", ConfirmationStatus),
    CheckConstraint(
        "(kind = 'budget') = (tool_call_id IS NULL) AND (kind = 'budget') = (step IS NOT NULL)", name="about_one_thing"
    ),
    Index("uq_confirmations_tool_call_id", "tenant_id", "tool_call_id", "kind", "attempt", unique=True),
    # A step waits for one answer at a time; when that has not made room enough, it asks again.
    Index(
        "uq_confirmations_step",
        "tenant_id",
        "run_id",
        "step",
        unique=True,
        postgresql_where=text("kind = 'budget' AND status = 'pending'"),
    ),
    Index("ix_confirmations_status", "tenant_id", "status", "confirmation_id"),
    Index("ix_confirmations_run_id", "tenant_id", "run_id"),
)

audit = Table(
    "audit",
    metadata,
    _tenant(),
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
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "audit_id"),
    _belongs_to("runs", "run_id"),
    Index("ix_audit_run_id", "tenant_id", "run_id", "kind"),
    Index("ix_audit_subject_id", "tenant_id", "subject_id"),
)

# Filled by a trigger when a transaction commits that has appended to the log.
audit_chain = Table(
    "audit_chain",
    metadata,
    _tenant(),
    Column("seq", BigInteger, nullable=False, comment="counts the tenant's entries from 1, without a gap"),
    Column("audit_id", BigInteger, nullable=False),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False, comment="SHA-256 of the record: see holdfast_audit_record"),
    PrimaryKeyConstraint("tenant_id", "seq"),
    Index("uq_audit_chain_audit_id", "tenant_id", "audit_id", unique=True),
)

budgets = Table(
    "budgets",
    metadata,
    _tenant(),
    Column("period", Text, nullable=False, comment="day, month or total"),
    Column("limit_usd", Numeric(18, 9), nullable=False),
    Column("raise_by_usd", Numeric(18, 9), comment="null: nobody is asked to raise the limit"),
    Column("approvers", ARRAY(Text), nullable=False, server_default=text("'{}'"), comment="roles; none: anybody"),
    Column("spent_usd", Numeric(18, 9), nullable=False, server_default=text("0"), comment="settled since period_began"),
    Column("period_began", DateTime(timezone=True), nullable=False, server_default=text("'-infinity'")),
    _created_at(),
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
    _tenant(),
    Column("reservation_id", Text, nullable=False, comment="of a run: its id and the step"),
    Column("run_id", Text, comment="null: of a model call by itself"),
    Column("amount_usd", Numeric(18, 9), nullable=False),
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "reservation_id"),
    Index("ix_reservations_run_id", "tenant_id", "run_id"),
)

# Without foreign keys, here and in `deltas`: a row is written by the statement that counts up its run's `last_seq`.
events = Table(
    "events",
    metadata,
    _tenant(),
    Column("run_id", Text, nullable=False),
    Column("seq", Integer, nullable=False, comment="counts what happened in the run from 1"),
    Column("type", Text, nullable=False, comment="see holdfast/domain/events.py"),
    # JSON and not JSONB: arguments stay in the order of the tool's signature, and any text of a model can be held.
    Column("data", JSON, nullable=False),
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "run_id", "seq"),
)

# Unlogged: a crash of PostgreSQL empties it. The numbers are of the same sequence as those of `events`.
deltas = Table(
    "deltas",
    metadata,
    _tenant(),
    Column("run_id", Text, nullable=False),
    Column("seq", Integer, nullable=False, comment="counts what happened in the run from 1"),
    Column("step", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("text", Text, nullable=False),
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "run_id", "seq"),
    prefixes=["UNLOGGED"],
)

# A trigger on `events` reads it, so that no writer of events can forget to.
subscriptions = Table(
    "subscriptions",
    metadata,
    _tenant(),
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
    _tenant(),
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
    _created_at(),
    Column(
        "pending_since",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
        comment="from when its time counts: created, first tried, held back or replayed",
    ),
    Column("settled_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant_id", "delivery_id"),
    _one_of("status", DeliveryStatus),
    Index("uq_deliveries_event", "tenant_id", "run_id", "seq", "target_id", unique=True),
    Index("ix_deliveries_target_id", "tenant_id", "target_id", "delivery_id"),
)

webhooks = Table(
    "webhooks",
    metadata,
    _tenant(),
    Column("webhook_id", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False, comment="sealed; bound to the tenant and the webhook"),
    Column("secret_key_id", Text, nullable=False, comment="which of the payload keys opens it"),
    Column("old_secret", LargeBinary, comment="the one before, which signs too until old_until"),
    Column("old_secret_key_id", Text),
    Column("old_until", DateTime(timezone=True)),
    Column("disabled_why", Text, comment="null: it is told"),
    Column("created_by", Text, nullable=False),
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "webhook_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
)

outbox = Table(
    "outbox",
    metadata,
    _tenant(),
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

# The row of the tenant "*" is the switch for everything: each tenant sees it, and only the tables' owner writes it.
switches = Table(
    "switches",
    metadata,
    _tenant(),
    Column("agent", Text, nullable=False, comment="empty: the whole tenant"),
    Column("reason", Text, nullable=False),
    Column("thrown_by", Text, nullable=False),
    Column("thrown_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    PrimaryKeyConstraint("tenant_id", "agent"),
)

slack_threads = Table(
    "slack_threads",
    metadata,
    _tenant(),
    Column("team_id", Text, nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("thread_ts", Text, nullable=False, comment="the first message's"),
    Column("conversation_id", Text, nullable=False),
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "team_id", "channel_id", "thread_ts"),
    _belongs_to("conversations", "conversation_id"),
    Index("uq_slack_threads_conversation_id", "tenant_id", "conversation_id", unique=True),
)

slack_posts = Table(
    "slack_posts",
    metadata,
    _tenant(),
    Column("subject_id", Text, nullable=False, comment="a run: its reply; a confirmation: its card; …:reminder"),
    Column("post_key", Uuid, nullable=False, comment="what the message can be found by"),
    Column("attempted_at", DateTime(timezone=True), comment="null: it was surely not posted"),
    Column("ts", Text, comment="the message's, once it is known"),
    Column("shown", Text, comment="SHA-256 of what the message says"),
    Column("delivery_id", Text, nullable=False, comment="the delivery that is working on it"),
    Column("claimed_until", DateTime(timezone=True), nullable=False),
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "subject_id"),
)
