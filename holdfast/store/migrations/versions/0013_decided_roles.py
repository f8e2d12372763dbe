"""The roles of a token that a decision was made with: nobody can look them up later."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "confirmations",
        sa.Column(
            "decided_roles",
            postgresql.ARRAY(sa.Text()),
            comment="of a token, those that counted; null: made with a key or an account",
        ),
    )
