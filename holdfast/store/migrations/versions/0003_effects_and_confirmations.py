"""Effects, confirmations and turns, complete: who may decide, what was edited, what joined which turn.

And the states: which may follow which stands in a trigger, so that a wrong transition is impossible, whoever asks for it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The trigger's argument maps each status to those that may follow it, and '' to those that a row may begin with.
_CHECK_STATUS = """
CREATE FUNCTION holdfast_check_status() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE before text := '';
BEGIN
  IF TG_OP = 'UPDATE' THEN
    before := OLD.status;
  END IF;
  IF NOT coalesce((TG_ARGV[0]::jsonb -> before) ? NEW.status, false) THEN
    RAISE EXCEPTION 'a row of % can''t go from "%" to "%"', TG_TABLE_NAME, before, NEW.status
      USING ERRCODE = 'check_violation', CONSTRAINT = TG_TABLE_NAME || '_status';
  END IF;
  RETURN NEW;
END $$
"""

_FOLLOWING = {
    "runs": """{
        "": ["queued", "merged"],
        "queued": ["running", "failed", "cancelled", "merged"],
        "running": ["requires_confirmation", "completed", "failed", "cancelled"],
        "requires_confirmation": ["running", "failed", "cancelled"]
    }""",
    "tool_calls": """{
        "": ["proposed", "approved", "denied", "failed"],
        "proposed": ["awaiting_confirmation", "withdrawn"],
        "awaiting_confirmation": ["approved", "rejected", "expired", "withdrawn"],
        "approved": ["dispatched", "denied", "withdrawn", "ambiguous"],
        "dispatched": ["succeeded", "failed", "ambiguous"],
        "ambiguous": ["succeeded", "failed", "approved"]
    }""",
    "confirmations": """{
        "": ["pending"],
        "pending": ["approved", "rejected", "resolved", "expired", "withdrawn"]
    }""",
}

_STATUSES = {
    "runs": ("queued", "running", "requires_confirmation", "completed", "failed", "cancelled", "merged"),
    "confirmations": ("pending", "approved", "rejected", "resolved", "expired", "withdrawn"),
}


def upgrade() -> None:
    _add_columns()
    op.drop_index("uq_confirmations_tool_call_id", "confirmations")
    op.create_index(
        "uq_confirmations_tool_call_id",
        "confirmations",
        ["tenant_id", "tool_call_id", "kind", "attempt"],
        unique=True,
    )
    op.create_index("ix_tool_calls_status", "tool_calls", ["tenant_id", "status", "tool_call_id"])
    for table, statuses in _STATUSES.items():
        listed = ", ".join(f"'{status}'" for status in statuses)
        op.drop_constraint(op.f(f"ck_{table}_status_known"), table)
        op.create_check_constraint(op.f(f"ck_{table}_status_known"), table, f"status IN ({listed})")
    op.execute(_CHECK_STATUS)
    for table, following in _FOLLOWING.items():
        argument = " ".join(following.split())
        for event, condition in (("INSERT", ""), ("UPDATE", "WHEN (OLD.status IS DISTINCT FROM NEW.status)")):
            op.execute(
                f"CREATE TRIGGER {table}_status_{event.lower()} BEFORE {event} ON {table} FOR EACH ROW {condition}"
                f" EXECUTE FUNCTION holdfast_check_status('{argument}')"
            )


def _add_columns() -> None:
    texts = postgresql.ARRAY(sa.Text())
    none, no = sa.text("'{}'"), sa.text("false")
    moment = sa.DateTime(timezone=True)
    op.add_column("api_keys", sa.Column("roles", texts, nullable=False, server_default=none))
    op.alter_column("runs", "requested_by", comment="who wrote the message, as its sender says")
    op.add_column(
        "runs",
        sa.Column("sent_by", sa.Text(), nullable=False, server_default="", comment="whose key the message came with"),
    )
    op.add_column("runs", sa.Column("on_busy", sa.Text(), nullable=False, server_default="queue"))
    op.add_column("runs", sa.Column("merged_into", sa.Text(), comment="the run that answers this one's message"))
    op.add_column(
        "runs", sa.Column("merged_at_step", sa.Integer(), comment="from which model call of that run on it is seen")
    )
    op.add_column("runs", sa.Column("cancelled_by", sa.Text(), comment="who asked for it to be stopped"))
    op.add_column("tool_calls", sa.Column("timeout_s", sa.Float(), nullable=False, server_default=sa.text("60")))
    op.add_column("tool_calls", sa.Column("max_attempts", sa.Integer(), nullable=False, server_default=sa.text("1")))
    op.add_column(
        "tool_calls",
        sa.Column("edited", sa.Boolean(), nullable=False, server_default=no, comment="a person changed the arguments"),
    )
    for column in (
        sa.Column("kind", sa.Text(), nullable=False, server_default="call", comment="call or outcome"),
        sa.Column(
            "attempt",
            sa.Integer(),
            nullable=False,
            server_default=sa.text("0"),
            comment="the dispatch an outcome is asked of",
        ),
        sa.Column("arguments_schema", postgresql.JSON(), comment="what an edit must fit"),
        sa.Column("sent_by", sa.Text(), nullable=False, server_default=""),
        sa.Column("approvers", texts, nullable=False, server_default=none, comment="roles; none: anybody"),
        sa.Column("four_eyes", sa.Boolean(), nullable=False, server_default=no),
        sa.Column("remind_at", moment),
        sa.Column("reminded_at", moment),
        sa.Column("escalate", postgresql.JSONB(), comment="an Escalation, until it has happened and after"),
        sa.Column("escalated_at", moment),
        sa.Column("edited_arguments", postgresql.JSON(), comment="what a person put in place of the arguments"),
        sa.Column("edited_digest", sa.Text()),
    ):
        op.add_column("confirmations", column)
    op.alter_column("outbox", "kind", comment="start, decided, freed or cancel")
