"""Deliveries: events of the log that somebody outside is told of; who wants to be told; and webhooks.

A delivery, and the word to Temporal about it, are written by a trigger in the transaction that logs the event: no writer
of events can forget it, and none waits for it. It locks nothing and has no foreign key, so nothing that becomes of a
target holds up or fails what an event records. Where nobody subscribes, it costs two looks into indexes.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_TABLES = ("subscriptions", "deliveries", "webhooks")
_OF_TENANT = "tenant_id = (SELECT holdfast_tenant())"

# The id is a UUID of version 7, in hexadecimal: PostgreSQL makes them itself from 18 on only. Names are qualified with
# their schema: an unqualified one could be a temporary table of whoever logs.
_ADD = """
CREATE FUNCTION holdfast_add_deliveries() RETURNS trigger LANGUAGE plpgsql SET search_path TO pg_catalog, pg_temp AS $$
BEGIN
  -- The usual case, at a quarter of what finding the same below costs.
  IF NOT EXISTS (SELECT FROM public.subscriptions s WHERE s.tenant_id = NEW.tenant_id) THEN
    RETURN NULL;
  END IF;
  WITH wanted AS (
    SELECT s.tenant_id, s.kind, s.target_id,
           'dlv_' || lpad(to_hex(CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS bigint)), 12, '0')
             || '7' || substr(replace(CAST(gen_random_uuid() AS text), '-', ''), 14) AS delivery_id
    FROM public.runs r
    JOIN public.subscriptions s ON s.tenant_id = r.tenant_id AND s.conversation_id IN ('', r.conversation_id)
    WHERE r.tenant_id = NEW.tenant_id AND r.run_id = NEW.run_id AND s.is_active AND NEW.type = ANY (s.types)
  ), added AS (
    INSERT INTO public.deliveries (tenant_id, delivery_id, kind, target_id, run_id, seq, type, workflow_id)
    SELECT tenant_id, delivery_id, kind, target_id, NEW.run_id, NEW.seq, NEW.type,
           concat_ws(':', tenant_id, kind, delivery_id)
    FROM wanted
    RETURNING delivery_id, workflow_id
  )
  INSERT INTO public.outbox (tenant_id, kind, workflow_id, run_id, subject_id, due_at)
  SELECT NEW.tenant_id, 'deliver', workflow_id, NEW.run_id, delivery_id, clock_timestamp() FROM added;
  IF FOUND THEN
    PERFORM pg_notify('holdfast_outbox', '');
  END IF;
  RETURN NULL;
END $$
"""

_TRIGGER = """
CREATE TRIGGER events_delivered AFTER INSERT ON events FOR EACH ROW
WHEN (NEW.type LIKE 'run.%' OR NEW.type LIKE 'confirmation.%') EXECUTE FUNCTION holdfast_add_deliveries()
"""


def upgrade() -> None:
    op.create_table(
        "subscriptions",
        _text("tenant_id"),
        _text("target_id", comment="the webhook, … that is told"),
        _text("kind", comment="webhook or slack"),
        _text("conversation_id", comment="empty: every one", server_default=""),
        sa.Column("types", postgresql.ARRAY(sa.Text()), nullable=False, comment="see holdfast/domain/deliveries.py"),
        sa.Column("is_active", sa.Boolean(), nullable=False, server_default=sa.text("true")),
        sa.PrimaryKeyConstraint("tenant_id", "target_id", name=op.f("pk_subscriptions")),
    )
    op.create_index("ix_subscriptions_conversation_id", "subscriptions", ["tenant_id", "conversation_id"])
    _create_deliveries()
    _create_webhooks()
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY {table}_of_tenant ON {table} USING ({_OF_TENANT}) WITH CHECK ({_OF_TENANT})")
    op.execute(_ADD)
    op.execute(_TRIGGER)
    op.alter_column("outbox", "kind", comment="start, decided, freed, cancel or deliver")
    op.alter_column("outbox", "subject_id", comment="the confirmation that was decided, or the delivery")


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        _text("tenant_id"),
        _text("delivery_id"),
        _text("kind", comment="webhook or slack"),
        _text("target_id"),
        _text("run_id"),
        sa.Column("seq", sa.Integer(), nullable=False, comment="the event's number in its run's log"),
        _text("type", comment="the event's"),
        _text("workflow_id", comment="whose it is now: a replay has one of its own"),
        _text("status", server_default="pending"),
        _count("attempts", comment="since the last replay"),
        _count("replays"),
        sa.Column("last_error", sa.Text(), comment="a few words, none of them the receiver's"),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True)),
        _now("created_at"),
        _now("pending_since", comment="from when its time counts: created, first tried, held back or replayed"),
        sa.Column("settled_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("tenant_id", "delivery_id", name=op.f("pk_deliveries")),
        sa.CheckConstraint("status IN ('pending', 'delivered', 'failed')", name=op.f("ck_deliveries_status_known")),
    )
    op.create_index("uq_deliveries_event", "deliveries", ["tenant_id", "run_id", "seq", "target_id"], unique=True)
    op.create_index("ix_deliveries_target_id", "deliveries", ["tenant_id", "target_id", "delivery_id"])


def _create_webhooks() -> None:
    op.create_table(
        "webhooks",
        _text("tenant_id"),
        _text("webhook_id"),
        _text("url"),
        sa.Column("secret", sa.LargeBinary(), nullable=False, comment="sealed; bound to the tenant and the webhook"),
        _text("secret_key_id", comment="which of the payload keys opens it"),
        sa.Column("old_secret", sa.LargeBinary(), comment="the one before, which signs too until old_until"),
        sa.Column("old_secret_key_id", sa.Text()),
        sa.Column("old_until", sa.DateTime(timezone=True)),
        sa.Column("disabled_why", sa.Text(), comment="null: it is told"),
        _text("created_by"),
        _now("created_at"),
        sa.PrimaryKeyConstraint("tenant_id", "webhook_id", name=op.f("pk_webhooks")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_webhooks_tenants")),
    )


def _text(name: str, comment: str | None = None, server_default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, comment=comment, server_default=server_default)


def _count(name: str, comment: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text("0"), comment=comment)


def _now(name: str, comment: str | None = None) -> sa.Column[object]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.text("clock_timestamp()"),
        comment=comment,
    )
