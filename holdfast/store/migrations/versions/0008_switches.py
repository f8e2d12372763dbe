"""The kill switch; and functions that nobody can mislead by a search path, or call without being allowed to."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_OF_TENANT = "tenant_id = (SELECT holdfast_tenant('app.relay'))"
_TO_RELAY = "(SELECT coalesce(current_setting('app.relay', true), '') = 'on')"

#: Each tenant sees the switch for everything, which is nobody's; a transaction that names no tenant still fails.
_FOR_ALL = f"tenant_id = '*' AND (SELECT holdfast_tenant('app.relay') IS NOT NULL) OR {_TO_RELAY}"

# By default, everybody may call a function; `holdfast migrate` lets the application's role.
_NOT_EVERYBODYS = """
DO $$
DECLARE own regprocedure;
BEGIN
  FOR own IN
    SELECT p.oid FROM pg_proc p WHERE pronamespace = 'public'::regnamespace AND proowner = current_user::regrole
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', own);
  END LOOP;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "switches",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False, comment="empty: the whole tenant"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("thrown_by", sa.Text(), nullable=False),
        sa.Column("thrown_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.PrimaryKeyConstraint("tenant_id", "agent", name=op.f("pk_switches")),
    )
    op.execute("ALTER TABLE switches ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE switches FORCE ROW LEVEL SECURITY")
    own = f"{_OF_TENANT} AND tenant_id <> '*'"
    op.execute(f"CREATE POLICY switches_of_tenant ON switches USING ({own}) WITH CHECK ({own})")
    op.execute(f"CREATE POLICY switches_for_all ON switches FOR SELECT USING ({_FOR_ALL})")
    op.execute(
        f"CREATE POLICY switches_by_owner ON switches TO CURRENT_USER USING ({_OF_TENANT}) WITH CHECK ({_OF_TENANT})"
    )
    _let_the_relay_name_tenants()
    op.create_index(
        "ix_runs_open",
        "runs",
        ["tenant_id", "run_id"],
        postgresql_where=sa.text("status IN ('queued', 'running', 'requires_confirmation')"),
    )
    for function in ("holdfast_tenant(text)", "holdfast_check_status()"):
        op.execute(f"ALTER FUNCTION {function} SET search_path = pg_catalog, pg_temp")
    op.execute(_NOT_EVERYBODYS)
    op.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")


def _let_the_relay_name_tenants() -> None:
    """The switch for everything is carried out tenant by tenant: whoever does that must know their names."""
    op.execute("DROP POLICY tenants_of_tenant ON tenants")
    op.execute(f"CREATE POLICY tenants_of_tenant ON tenants USING ({_OF_TENANT}) WITH CHECK ({_OF_TENANT})")
    op.execute(f"CREATE POLICY tenants_to_relay ON tenants FOR SELECT USING ({_TO_RELAY})")
