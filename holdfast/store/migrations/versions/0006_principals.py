"""Who acts: keys that expire and are revoked, identities, and roles for the keys that are there."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_OF_TENANT = "tenant_id = (SELECT holdfast_tenant())"

# Until now every key could do everything but what is an admin's from now on, and made no use of these names.
_GIVE_ROLES = """
UPDATE api_keys SET roles = roles || ARRAY(
  SELECT given FROM unnest(ARRAY['approver', 'client', 'operator']) given WHERE given <> ALL (roles)
)
"""


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("api_keys", sa.Column("created_by", sa.Text(), comment="who made it; null: nobody knows any more"))
    op.add_column("api_keys", sa.Column("expires_at", moment, comment="null: never"))
    op.add_column("api_keys", sa.Column("revoked_at", moment))
    op.add_column("api_keys", sa.Column("last_used_at", moment, comment="to a minute"))
    # The owner is bound by the policies too, and names no tenant here.
    op.execute("ALTER TABLE api_keys NO FORCE ROW LEVEL SECURITY")
    op.execute(_GIVE_ROLES)
    op.execute("ALTER TABLE api_keys FORCE ROW LEVEL SECURITY")
    op.create_index("ix_runs_sent_by", "runs", ["tenant_id", "sent_by", "run_id"])
    _add_identities()


def _add_identities() -> None:
    op.create_table(
        "identities",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="key, oidc or slack"),
        sa.Column("subject", sa.Text(), nullable=False, comment="the key's id, the token's subject, the account"),
        sa.Column("principal", sa.Text(), nullable=False, comment="who acts with it"),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "kind", "subject", name=op.f("pk_identities")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_identities_tenants")),
        sa.CheckConstraint("kind IN ('key', 'oidc', 'slack')", name=op.f("ck_identities_kind_known")),
    )
    op.create_index("ix_identities_principal", "identities", ["tenant_id", "principal"])
    op.execute("ALTER TABLE identities ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE identities FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY identities_of_tenant ON identities USING ({_OF_TENANT}) WITH CHECK ({_OF_TENANT})")
