"""Tools of clients: declared with a message, and their calls; and by what a client that knows no id finds its conversation.

A call of such a tool goes through the ledger's states as they are: approved, then dispatched and succeeded at once.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "runs",
        sa.Column("client_tools", postgresql.JSON(), comment="each a ClientTool; null: the message brought none"),
    )
    op.add_column(
        "messages",
        sa.Column(
            "history", sa.Text(), comment="SHA-256 of all that its client knew of the conversation, itself included"
        ),
    )
    op.create_index(
        "ix_messages_history",
        "messages",
        ["tenant_id", "history"],
        postgresql_where=sa.text("history IS NOT NULL"),
    )
    op.add_column(
        "tool_calls",
        sa.Column(
            "by_client", sa.Boolean(), nullable=False, server_default=sa.text("false"), comment="its client runs it"
        ),
    )
    op.create_index(
        "ix_tool_calls_handed_over",
        "tool_calls",
        ["tenant_id", "run_id"],
        postgresql_where=sa.text("by_client AND status = 'approved'"),
    )
