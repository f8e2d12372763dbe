"""Slack: threads that are conversations, what was posted in them, and roles of accounts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TABLES = ("slack_threads", "slack_posts")
_OF_TENANT = "tenant_id = (SELECT holdfast_tenant())"


def upgrade() -> None:
    op.add_column(
        "identities",
        sa.Column(
            "roles",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            server_default="{}",
            comment="of an account of Slack: a key and a token bring their own",
        ),
    )
    op.create_table(
        "slack_threads",
        _text("tenant_id"),
        _text("team_id"),
        _text("channel_id"),
        _text("thread_ts", comment="the first message's"),
        _text("conversation_id"),
        _now("created_at"),
        sa.PrimaryKeyConstraint("tenant_id", "team_id", "channel_id", "thread_ts", name=op.f("pk_slack_threads")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "conversation_id"],
            ["conversations.tenant_id", "conversations.conversation_id"],
            name=op.f("fk_slack_threads_conversations"),
        ),
    )
    op.create_index("uq_slack_threads_conversation_id", "slack_threads", ["tenant_id", "conversation_id"], unique=True)
    op.create_table(
        "slack_posts",
        _text("tenant_id"),
        _text("subject_id", comment="a run: its reply; a confirmation: its card; …:reminder"),
        sa.Column("post_key", sa.UUID(), nullable=False, comment="what the message can be found by"),
        sa.Column("attempted_at", sa.DateTime(timezone=True), comment="null: it was surely not posted"),
        sa.Column("ts", sa.Text(), comment="the message's, once it is known"),
        sa.Column("shown", sa.Text(), comment="SHA-256 of what the message says"),
        _text("delivery_id", comment="the delivery that is working on it"),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=False),
        _now("created_at"),
        sa.PrimaryKeyConstraint("tenant_id", "subject_id", name=op.f("pk_slack_posts")),
    )
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY {table}_of_tenant ON {table} USING ({_OF_TENANT}) WITH CHECK ({_OF_TENANT})")


def _text(name: str, comment: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, comment=comment)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()"))
