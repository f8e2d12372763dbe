"""The event log of a run: what happened, in one sequence; and the pieces of text that were streamed, in the same.

`deltas` is unlogged: a crash of PostgreSQL empties it, and what it held comes again with the whole text. The counter
stands on the run's row, so that numbers are given in the order of commits: see `holdfast.store.event_log`.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TABLES = ("events", "deltas")
_OF_TENANT = "tenant_id = (SELECT holdfast_tenant())"


def upgrade() -> None:
    _add_counters()
    op.create_table(
        "events",
        *_key(),
        sa.Column("type", sa.Text(), nullable=False, comment="see holdfast/domain/events.py"),
        sa.Column("data", postgresql.JSON(), nullable=False),
        _created_at(),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", "seq", name=op.f("pk_events")),
    )
    op.create_table(
        "deltas",
        *_key(),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        _created_at(),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", "seq", name=op.f("pk_deltas")),
        prefixes=["UNLOGGED"],
    )
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY {table}_of_tenant ON {table} USING ({_OF_TENANT}) WITH CHECK ({_OF_TENANT})")


def _add_counters() -> None:
    for column in (
        _number("last_seq", 0, "the number of its newest event"),
        _number("stream_step", 1, "the model call whose text may be streamed"),
        sa.Column("stream_began", sa.DateTime(timezone=True), comment="when the try that may stream it began"),
        _number("stream_attempt", 0, "how many tries have streamed text"),
        sa.Column(
            "stream_is_open",
            sa.Boolean(),
            nullable=False,
            server_default=sa.text("false"),
            comment="text of the newest try was streamed, and neither completed nor taken back",
        ),
    ):
        op.add_column("runs", column)


def _number(name: str, default: int, comment: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text(str(default)), comment=comment)


def _key() -> list[sa.Column[object]]:
    return [
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False, comment="counts what happened in the run from 1"),
    ]


def _created_at() -> sa.Column[object]:
    return sa.Column(
        "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
    )
