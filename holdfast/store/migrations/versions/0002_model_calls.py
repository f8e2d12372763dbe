"""What a model call took, in full; and model calls that belong to no run."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("steps", sa.Column("usage_estimated", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column(
        "steps",
        sa.Column(
            "attempts",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
            comment="each an Attempt",
        ),
    )
    op.add_column("steps", sa.Column("first_token_ms", sa.Integer(), comment="null: the answer came whole"))
    op.alter_column("audit", "run_id", nullable=True, comment="null: a model call by itself, for no run")
    op.alter_column("audit", "detail", comment="why, for a failure or a fallback; never content")
    op.add_column(
        "audit", sa.Column("purpose", sa.Text(), comment="what a model call by itself was for, as its caller said")
    )
    op.add_column("audit", sa.Column("usage_estimated", sa.Boolean()))
    op.add_column("audit", sa.Column("first_token_ms", sa.Integer()))
