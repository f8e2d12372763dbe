"""Provider keys of tenants, sealed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_OF_TENANT = "tenant_id = (SELECT holdfast_tenant())"


def upgrade() -> None:
    op.create_table(
        "provider_keys",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False, comment="bound to the tenant and the provider"),
        sa.Column("key_id", sa.Text(), nullable=False, comment="which of the payload keys opens it"),
        sa.Column("hint", sa.Text(), nullable=False, comment="its last characters, to tell it from another"),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "provider", name=op.f("pk_provider_keys")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("fk_provider_keys_tenants")),
    )
    op.execute("ALTER TABLE provider_keys ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE provider_keys FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY provider_keys_of_tenant ON provider_keys USING ({_OF_TENANT}) WITH CHECK ({_OF_TENANT})")
