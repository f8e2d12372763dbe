"""The audit log as a hash chain for each tenant.

A row of `audit` is entered into the chain when its transaction commits, by a deferred constraint trigger. It takes the
tenant's lock, which is thus the last that a transaction takes and is held for the commit alone, reads the head and adds
to it: numbers have no gap, since who waits for the lock has nothing to do any more but commit.

The record that is hashed is made of the row's columns as texts, in UTC, without the empty ones: a column that a later
migration adds changes no hash. `holdfast.domain.audit` makes the same from what it reads. Names are qualified with
their schema: an unqualified one could be a temporary table of whoever commits.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_RECORD = """
CREATE FUNCTION holdfast_audit_record(entry public.audit, seq bigint, previous_hash text) RETURNS text
LANGUAGE sql STABLE SET timezone TO 'UTC' SET search_path TO pg_catalog, public, pg_temp AS $$
  SELECT '{' || string_agg(to_json(key)::text || ':' || to_json(value)::text, ',' ORDER BY key COLLATE "C") || '}'
  FROM jsonb_each_text(
    to_jsonb(entry) - ARRAY['person', 'detail', 'purpose', 'salts', 'erased']
    || jsonb_build_object('seq', seq, 'previous_hash', previous_hash)
  )
  WHERE value IS NOT NULL
$$
"""

# Each statement of a volatile function sees what was committed before it began: the head is read after the lock is had.
_CHAIN = """
CREATE FUNCTION holdfast_chain_audit() RETURNS trigger LANGUAGE plpgsql
SET search_path TO pg_catalog, public, pg_temp AS $$
DECLARE
  head record;
  new_seq bigint := 1;
  before text := repeat('0', 64);
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('holdfast audit ' || NEW.tenant_id, 0));
  SELECT c.seq, c.hash INTO head FROM public.audit_chain c
  WHERE c.tenant_id = NEW.tenant_id ORDER BY c.seq DESC LIMIT 1;
  IF FOUND THEN
    new_seq := head.seq + 1;
    before := head.hash;
  END IF;
  INSERT INTO public.audit_chain (tenant_id, seq, audit_id, previous_hash, hash)
  VALUES (NEW.tenant_id, new_seq, NEW.audit_id, before, encode(
    sha256(convert_to(public.holdfast_audit_record(NEW, new_seq, before), 'UTF8')), 'hex'
  ));
  RETURN NULL;
END $$
"""

_TRIGGER = """
CREATE CONSTRAINT TRIGGER audit_chained AFTER INSERT ON audit DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION holdfast_chain_audit()
"""

# What is on record so far: committed to as it is, and chained in the order of its numbers.
_COMMIT_TO_EXISTING = """
UPDATE audit a SET salts = made.salts, digests = made.digests
FROM (
  SELECT tenant_id, audit_id, jsonb_object_agg(slot, salt) AS salts,
         jsonb_object_agg(slot, encode(sha256(convert_to(salt || ':' || slot || ':' || value, 'UTF8')), 'hex'))
           AS digests
  FROM (
    SELECT tenant_id, audit_id, slot, value, replace(gen_random_uuid()::text, '-', '') AS salt
    FROM audit CROSS JOIN LATERAL (VALUES ('person', person), ('detail', detail), ('purpose', purpose)) v (slot, value)
    WHERE value IS NOT NULL
  ) each_slot
  GROUP BY tenant_id, audit_id
) made
WHERE a.tenant_id = made.tenant_id AND a.audit_id = made.audit_id
"""
_CHAIN_EXISTING = """
DO $$
DECLARE
  entry public.audit;
  of_tenant text;
  new_seq bigint;
  before text;
  made text;
BEGIN
  FOR entry IN SELECT * FROM public.audit ORDER BY tenant_id, audit_id LOOP
    IF of_tenant IS DISTINCT FROM entry.tenant_id THEN
      of_tenant := entry.tenant_id;
      new_seq := 0;
      before := repeat('0', 64);
    END IF;
    new_seq := new_seq + 1;
    made := encode(sha256(convert_to(public.holdfast_audit_record(entry, new_seq, before), 'UTF8')), 'hex');
    INSERT INTO public.audit_chain (tenant_id, seq, audit_id, previous_hash, hash)
    VALUES (entry.tenant_id, new_seq, entry.audit_id, before, made);
    before := made;
  END LOOP;
END $$
"""

# Whoever signs the heads of all tenants sees numbers and hashes of all, and no other table.
_SEEN = """tenant_id = (SELECT holdfast_tenant('app.heads'))
  OR (SELECT coalesce(current_setting('app.heads', true), '') = 'on')"""
_OF_TENANT = "tenant_id = (SELECT holdfast_tenant())"


def upgrade() -> None:
    _add_columns()
    _add_chain()
    # The owner is bound by the policies too, which know no transaction of all tenants.
    op.execute("ALTER TABLE audit NO FORCE ROW LEVEL SECURITY")
    op.execute(_COMMIT_TO_EXISTING)
    op.execute(_RECORD)
    op.execute(_CHAIN)
    op.execute(_CHAIN_EXISTING)
    op.execute("ALTER TABLE audit FORCE ROW LEVEL SECURITY")
    op.execute(_TRIGGER)
    op.execute("ALTER TABLE audit_chain ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE audit_chain FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY audit_chain_of_tenant ON audit_chain USING ({_SEEN}) WITH CHECK ({_OF_TENANT})")


def _add_columns() -> None:
    none = sa.text("'{}'::jsonb")
    for column in (
        sa.Column("via", sa.Text(), comment="the way it came, such as api or chat"),
        sa.Column("attempt", sa.Integer(), comment="which dispatch of a tool call"),
        sa.Column("digests", postgresql.JSONB(), nullable=False, server_default=none, comment="of what may be erased"),
        sa.Column(
            "salts", postgresql.JSONB(), nullable=False, server_default=none, comment="of the digests, till erased"
        ),
        sa.Column("erased", postgresql.JSONB(), nullable=False, server_default=none, comment="by which erasure"),
    ):
        op.add_column("audit", column)
    op.alter_column("audit", "kind", comment="see holdfast/domain/audit.py")
    op.alter_column("audit", "run_id", comment="null: of no run")
    op.alter_column("audit", "subject_id", comment="the message, tool call, confirmation, … it is about")
    op.alter_column("audit", "person", comment="who did it, or decided")
    op.create_index("ix_audit_subject_id", "audit", ["tenant_id", "subject_id"])


def _add_chain() -> None:
    op.create_table(
        "audit_chain",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="counts the tenant's entries from 1, without a gap"),
        sa.Column("audit_id", sa.BigInteger(), nullable=False),
        sa.Column("previous_hash", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False, comment="SHA-256 of the record: see holdfast_audit_record"),
        sa.PrimaryKeyConstraint("tenant_id", "seq", name=op.f("pk_audit_chain")),
    )
    op.create_index("uq_audit_chain_audit_id", "audit_chain", ["tenant_id", "audit_id"], unique=True)
