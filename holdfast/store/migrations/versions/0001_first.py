"""The first schema: tables, row-level security, and who may see what.

Each table has `tenant_id` and a policy, forced on its owner too. A transaction names its tenant with
`set_config('app.tenant_id', …, true)`; in one that names none, reading or writing raises. Two tables open a second,
narrower door: `api_keys` shows the one row whose hash the transaction names, since the tenant is not known before the key
is found, and `outbox`, which holds ids only, is seen whole by the relay.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# `unless` names another setting that may open a table: while that is set, no row is the tenant's, and that is no error.
# (A setting that was set in an earlier transaction of the same session reads as '' and not as NULL.)
_TENANT = """
CREATE FUNCTION holdfast_tenant(unless text DEFAULT NULL) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE tenant text := nullif(current_setting('app.tenant_id', true), '');
BEGIN
  IF tenant IS NULL AND coalesce(current_setting(unless, true), '') = '' THEN
    RAISE EXCEPTION 'no tenant is set for this transaction' USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN tenant;
END $$
"""

# (SELECT …) is evaluated once a statement, not once a row, and its value can be looked up in an index.
_OF_TENANT = "tenant_id = (SELECT holdfast_tenant())"
_OF_KEY = """tenant_id = (SELECT holdfast_tenant('app.key_hash'))
  OR key_hash = (SELECT decode(nullif(current_setting('app.key_hash', true), ''), 'hex'))"""
_OF_RELAY = """tenant_id = (SELECT holdfast_tenant('app.relay'))
  OR (SELECT coalesce(current_setting('app.relay', true), '') = 'on')"""

_TABLES = (
    "tenants",
    "api_keys",
    "agents",
    "conversations",
    "runs",
    "messages",
    "steps",
    "tool_calls",
    "confirmations",
    "audit",
    "outbox",
)


def upgrade() -> None:
    op.create_table(
        "outbox",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("outbox_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="start or decided"),
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=True, comment="the confirmation that was decided"),
        sa.Column(
            "due_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp() + '2 seconds'::interval"),
            nullable=False,
            comment="until then, whoever committed it is saying it",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "outbox_id", name=op.f("pk_outbox")),
    )
    op.create_index("ix_outbox_due_at", "outbox", ["due_at"], unique=False)
    op.create_index("ix_outbox_run_id", "outbox", ["tenant_id", "run_id"], unique=False)
    op.create_table(
        "tenants",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_tenants")),
    )
    op.create_table(
        "agents",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "version", sa.Integer(), nullable=False, comment="from 1; a run keeps the version it was accepted with"
        ),
        sa.Column("spec", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="an AgentSpec"),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_agents_tenants")),
        sa.PrimaryKeyConstraint("tenant_id", "name", "version", name=op.f("pk_agents")),
    )
    op.create_table(
        "api_keys",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False, comment="HMAC-SHA256 of the key under the pepper"),
        sa.Column("person", sa.Text(), nullable=False, comment="who acts with this key"),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_api_keys_tenants")),
        sa.PrimaryKeyConstraint("tenant_id", "key_id", name=op.f("pk_api_keys")),
    )
    op.create_index("ix_api_keys_key_hash", "api_keys", ["key_hash"], unique=False)
    op.create_table(
        "conversations",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("last_position", sa.Integer(), nullable=False, comment="the position of the newest run"),
        sa.Column("turn_run_id", sa.Text(), nullable=True, comment="the run that has the turn"),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_conversations_tenants")),
        sa.PrimaryKeyConstraint("tenant_id", "conversation_id", name=op.f("pk_conversations")),
    )
    op.create_table(
        "runs",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("agent_version", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, comment="place in the conversation, in order of arrival"),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("degraded", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'requires_confirmation', 'completed', 'failed', 'cancelled')",
            name=op.f("ck_runs_status_known"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "conversation_id"],
            ["conversations.tenant_id", "conversations.conversation_id"],
            name=op.f("fk_runs_conversations"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", name=op.f("pk_runs")),
    )
    op.create_index("ix_runs_conversation", "runs", ["tenant_id", "conversation_id", "position"], unique=True)
    op.create_table(
        "audit",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("audit_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="model_call, tool_call, confirmation, run"),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("subject_id", sa.Text(), nullable=True, comment="the tool call or confirmation it is about"),
        sa.Column("tool", sa.Text(), nullable=True),
        sa.Column("person", sa.Text(), nullable=True, comment="who decided"),
        sa.Column("alias", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("deployment", sa.Text(), nullable=True),
        sa.Column("prompt_tokens", sa.Integer(), nullable=True),
        sa.Column("completion_tokens", sa.Integer(), nullable=True),
        sa.Column("cost_usd", sa.Numeric(precision=18, scale=9), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True, comment="why, for a failure; never content"),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name=op.f("fk_audit_runs")),
        sa.PrimaryKeyConstraint("tenant_id", "audit_id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_run_id", "audit", ["tenant_id", "run_id", "kind"], unique=False)
    op.create_table(
        "messages",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True, comment="SHA-256 of the body that the key came with"),
        sa.Column("sender", sa.Text(), nullable=True),
        sa.Column(
            "metadata", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name=op.f("fk_messages_runs")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "message_id", name=op.f("pk_messages")),
    )
    op.create_index("uq_messages_idempotency_key", "messages", ["tenant_id", "idempotency_key"], unique=True)
    op.create_index("uq_messages_run_role", "messages", ["tenant_id", "run_id", "role"], unique=True)
    op.create_table(
        "steps",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("cost_usd", sa.Numeric(precision=18, scale=9), nullable=True, comment="null: no price is known"),
        sa.Column("latency_ms", sa.Integer(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name=op.f("fk_steps_runs")),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", "step", name=op.f("pk_steps")),
    )
    op.create_table(
        "tool_calls",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("tool_call_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, comment="place within the step, from 0"),
        sa.Column("tool", sa.Text(), nullable=False),
        sa.Column("arguments_raw", sa.Text(), nullable=False, comment="as the model wrote them"),
        sa.Column(
            "arguments",
            postgresql.JSON(astext_type=sa.Text()),
            nullable=True,
            comment="validated; null when they don't fit the schema",
        ),
        sa.Column("arguments_digest", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("effect", sa.Text(), nullable=False),
        sa.Column("idempotency", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("result", sa.Text(), nullable=True, comment="JSON"),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('proposed', 'awaiting_confirmation', 'approved', 'dispatched', 'succeeded', 'failed', 'ambiguous', 'rejected', 'expired', 'withdrawn', 'denied')",
            name=op.f("ck_tool_calls_status_known"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name=op.f("fk_tool_calls_runs")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "tool_call_id", name=op.f("pk_tool_calls")),
    )
    op.create_index("uq_tool_calls_step", "tool_calls", ["tenant_id", "run_id", "step", "position"], unique=True)
    op.create_table(
        "confirmations",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("confirmation_id", sa.Text(), nullable=False),
        sa.Column("tool_call_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("tool", sa.Text(), nullable=False),
        sa.Column("arguments", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("arguments_digest", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=False),
        sa.Column("on_deadline", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decided_via", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column(
            "used_at", sa.DateTime(timezone=True), nullable=True, comment="when the approval was used up by a dispatch"
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'approved', 'rejected', 'expired', 'withdrawn')",
            name=op.f("ck_confirmations_status_known"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "tool_call_id"],
            ["tool_calls.tenant_id", "tool_calls.tool_call_id"],
            name=op.f("fk_confirmations_tool_calls"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "confirmation_id", name=op.f("pk_confirmations")),
    )
    op.create_index("ix_confirmations_run_id", "confirmations", ["tenant_id", "run_id"], unique=False)
    op.create_index(
        "ix_confirmations_status", "confirmations", ["tenant_id", "status", "confirmation_id"], unique=False
    )
    op.create_index("uq_confirmations_tool_call_id", "confirmations", ["tenant_id", "tool_call_id"], unique=True)
    op.execute(_TENANT)
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        using = {"api_keys": _OF_KEY, "outbox": _OF_RELAY}.get(table, _OF_TENANT)
        check = _OF_RELAY if table == "outbox" else _OF_TENANT
        op.execute(f"CREATE POLICY {table}_of_tenant ON {table} USING ({using}) WITH CHECK ({check})")
