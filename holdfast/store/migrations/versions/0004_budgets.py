"""Budgets: what a tenant's model calls may cost, what is reserved for those on their way, and the question for more."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_OF_TENANT = "tenant_id = (SELECT holdfast_tenant())"


def upgrade() -> None:
    _add_tables()
    for table in ("budgets", "reservations"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY {table}_of_tenant ON {table} USING ({_OF_TENANT}) WITH CHECK ({_OF_TENANT})")
    op.alter_column("confirmations", "kind", comment="call, outcome or budget")
    op.alter_column(
        "confirmations", "tool_call_id", nullable=True, comment="null: of kind budget, which is about a step"
    )
    op.add_column(
        "confirmations", sa.Column("step", sa.Integer(), comment="the model call that a budget has no room for")
    )
    op.create_check_constraint(
        op.f("ck_confirmations_about_one_thing"),
        "confirmations",
        "(kind = 'budget') = (tool_call_id IS NULL) AND (kind = 'budget') = (step IS NOT NULL)",
    )
    op.create_index(
        "uq_confirmations_step",
        "confirmations",
        ["tenant_id", "run_id", "step"],
        unique=True,
        postgresql_where=sa.text("kind = 'budget' AND status = 'pending'"),
    )
    op.alter_column("audit", "kind", comment="model_call, tool_call, confirmation, run, budget")


def _add_tables() -> None:
    money, moment = sa.Numeric(18, 9), sa.DateTime(timezone=True)
    now = sa.text("clock_timestamp()")
    op.create_table(
        "budgets",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False, comment="day, month or total"),
        sa.Column("limit_usd", money, nullable=False),
        sa.Column("raise_by_usd", money, comment="null: nobody is asked to raise the limit"),
        sa.Column(
            "approvers",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            server_default=sa.text("'{}'"),
            comment="roles; none: anybody",
        ),
        sa.Column(
            "spent_usd", money, nullable=False, server_default=sa.text("0"), comment="settled since period_began"
        ),
        sa.Column("period_began", moment, nullable=False, server_default=sa.text("'-infinity'")),
        sa.Column("created_at", moment, nullable=False, server_default=now),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_budgets")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_budgets_tenants")),
        sa.CheckConstraint("period IN ('day', 'month', 'total')", name=op.f("ck_budgets_period_known")),
        sa.CheckConstraint("limit_usd >= 0 AND raise_by_usd > 0", name=op.f("ck_budgets_amounts_make_sense")),
    )
    op.create_table(
        "reservations",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("reservation_id", sa.Text(), nullable=False, comment="of a run: its id and the step"),
        sa.Column("run_id", sa.Text(), comment="null: of a model call by itself"),
        sa.Column("amount_usd", money, nullable=False),
        sa.Column("created_at", moment, nullable=False, server_default=now),
        sa.PrimaryKeyConstraint("tenant_id", "reservation_id", name=op.f("pk_reservations")),
    )
    op.create_index("ix_reservations_run_id", "reservations", ["tenant_id", "run_id"])
