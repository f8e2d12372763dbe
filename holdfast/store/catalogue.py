"""The rules that keep tenants apart, read off PostgreSQL's own catalogue: what breaks one is named.

A table that is added without its policy, a view that does not act for whoever asks, a unique index over all tenants:
each works in every test of what it is for, and shows or tells one tenant something of another. So nobody is trusted to
remember. `holdfast doctor` and a test scan every table, view, index, function, sequence and grant that there is.

What is allowed beside the rules is listed here: `DOORS`, the policies that show more than the tenant's own rows.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

_OWN = "(tenant_id = ( SELECT holdfast_tenant() AS holdfast_tenant))"
_OWN_BESIDE_RELAY = "(tenant_id = ( SELECT holdfast_tenant('app.relay'::text) AS holdfast_tenant))"
_IS_RELAY = "( SELECT (COALESCE(current_setting('app.relay'::text, true), ''::text) = 'on'::text))"
_OWN_KEY = (
    "((tenant_id = ( SELECT holdfast_tenant('app.key_hash'::text) AS holdfast_tenant)) OR"
    " (key_hash = ( SELECT decode(NULLIF(current_setting('app.key_hash'::text, true), ''::text), 'hex'::text)"
    " AS decode)))"
)
_OWN_BESIDE_HEADS = "(tenant_id = ( SELECT holdfast_tenant('app.heads'::text) AS holdfast_tenant))"
_IS_HEADS = "( SELECT (COALESCE(current_setting('app.heads'::text, true), ''::text) = 'on'::text))"
_NOT_EVERYBODY = f"({_OWN_BESIDE_RELAY} AND (tenant_id <> '*'::text))"
_EVERYBODY = "((tenant_id = '*'::text) AND ( SELECT (holdfast_tenant('app.relay'::text) IS NOT NULL)))"


@dataclass(frozen=True)
class Policy:
    """A policy, as the catalogue shows it. `is_for_all_roles` False: it is for the tables' owner only."""

    table: str
    command: str
    using: str | None
    check: str | None
    is_for_all_roles: bool = True


#: The policies that are not simply "the tenant's own rows, to read and to write", each with its reason.
DOORS = frozenset(
    {
        # A key is found by its hash before anybody knows whose it is.
        Policy("api_keys", "ALL", _OWN_KEY, _OWN),
        # Whoever signs the heads of all tenants sees their numbers and hashes.
        Policy("audit_chain", "ALL", f"({_OWN_BESIDE_HEADS} OR {_IS_HEADS})", _OWN),
        # The relay says what waits to be said, whosever it is.
        Policy("outbox", "ALL", f"({_OWN_BESIDE_RELAY} OR {_IS_RELAY})", f"({_OWN_BESIDE_RELAY} OR {_IS_RELAY})"),
        # The stopper carries the switch for everything out, tenant by tenant.
        Policy("tenants", "ALL", _OWN_BESIDE_RELAY, _OWN_BESIDE_RELAY),
        Policy("tenants", "SELECT", _IS_RELAY, None),
        # Each tenant sees the switch for everything; only the owner writes it.
        Policy("switches", "ALL", _NOT_EVERYBODY, _NOT_EVERYBODY),
        Policy("switches", "SELECT", f"({_EVERYBODY} OR {_IS_RELAY})", None),
        Policy("switches", "ALL", _OWN_BESIDE_RELAY, _OWN_BESIDE_RELAY, is_for_all_roles=False),
    }
)

#: Not a tenant's: the revision of the schema.
_OF_NOBODY = "alembic_version"

#: What no role but the owner may do to a table; to none may it do more than SELECT, INSERT, UPDATE and DELETE.
NEVER = {
    "alembic_version": ("INSERT", "UPDATE", "DELETE"),
    # What is on record stays on record, and what is never changed can't be.
    "audit": ("UPDATE", "DELETE"),
    "audit_chain": ("UPDATE", "DELETE"),
    # These have their time, and go then.
    "events": ("UPDATE",),
    "deltas": ("UPDATE",),
    "tenants": ("UPDATE", "DELETE"),
    "api_keys": ("DELETE",),
    "agents": ("UPDATE", "DELETE"),
    "messages": ("UPDATE", "DELETE"),
    "steps": ("UPDATE", "DELETE"),
    "conversations": ("DELETE",),
    "runs": ("DELETE",),
    "tool_calls": ("DELETE",),
    "confirmations": ("DELETE",),
    "budgets": ("DELETE",),
    "slack_threads": ("UPDATE", "DELETE"),
}

# What is ours: neither PostgreSQL's own, nor what an extension brought.
_OURS = """
ours AS (
  SELECT c.oid, c.relname, c.relkind, c.relnamespace, c.relowner, c.relacl, c.reloptions, c.relrowsecurity,
         c.relforcerowsecurity, n.nspname || '.' || c.relname AS name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
), tables AS (
  SELECT * FROM ours WHERE relkind IN ('r', 'p') AND relname <> :of_nobody
), functions AS (
  SELECT p.*, n.nspname || '.' || p.proname AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
)
"""

_BREACHES = text(f"""
WITH {_OURS}
SELECT 'table' AS kind, name, 'has no column tenant_id of type text, NOT NULL' AS breach FROM tables WHERE NOT EXISTS (
  SELECT FROM pg_attribute a
  WHERE a.attrelid = tables.oid AND attname = 'tenant_id' AND atttypid = 'text'::regtype AND attnotnull
)
UNION ALL SELECT 'table', name, 'has no row-level security' FROM tables WHERE NOT relrowsecurity
UNION ALL SELECT 'table', name, 'does not force row-level security on its owner' FROM tables
  WHERE NOT relforcerowsecurity
UNION ALL SELECT 'table', name, 'is of a kind that row-level security does not bind' FROM ours
  WHERE relkind IN ('m', 'f')
UNION ALL SELECT 'table', name, 'has a rule, which can read for anybody' FROM ours
  JOIN pg_rewrite w ON w.ev_class = ours.oid WHERE w.rulename <> '_RETURN'
UNION ALL SELECT 'policy', polname || ' on ' || ours.name, 'reads another table: ' || d.refobjid::regclass
  FROM pg_policy p JOIN ours ON ours.oid = polrelid
  JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass
  WHERE d.refobjid <> polrelid
UNION ALL SELECT 'policy', polname || ' on ' || ours.name,
    'calls a function of ours that is not holdfast_tenant: ' || f.name
  FROM pg_policy p JOIN ours ON ours.oid = polrelid
  JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_proc'::regclass
  JOIN functions f ON f.oid = d.refobjid WHERE f.name <> 'public.holdfast_tenant'
UNION ALL SELECT 'index', x.relname || ' on ' || tables.name, 'is unique over all tenants: tenant_id must come first'
  FROM tables JOIN pg_index i ON i.indrelid = tables.oid JOIN pg_class x ON x.oid = i.indexrelid
  LEFT JOIN pg_attribute a ON a.attrelid = tables.oid AND a.attnum = i.indkey[0]
  WHERE (i.indisunique OR i.indisexclusion) AND a.attname IS DISTINCT FROM 'tenant_id'
UNION ALL SELECT 'foreign key', k.conname || ' on ' || tables.name, 'does not lead from tenant_id to tenant_id'
  FROM tables JOIN pg_constraint k ON k.conrelid = tables.oid AND k.contype = 'f'
  JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
  JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = k.confkey[1]
  WHERE (a.attname, b.attname) <> ('tenant_id', 'tenant_id')
UNION ALL SELECT 'view', name, 'acts as its owner: it needs security_invoker' FROM ours
  WHERE relkind = 'v' AND NOT coalesce(reloptions && '{{security_invoker=true,security_invoker=on}}', false)
UNION ALL SELECT 'function', name, 'acts as its owner (SECURITY DEFINER)' FROM functions WHERE prosecdef
UNION ALL SELECT 'function', name, 'has no search_path of its own' FROM functions
  WHERE NOT EXISTS (SELECT FROM unnest(proconfig) set WHERE set LIKE 'search_path=%')
UNION ALL SELECT 'function', name, 'can be called by everybody' FROM functions
  WHERE EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)
UNION ALL SELECT 'table', name, privilege_type || ' is granted to everybody' FROM ours, aclexplode(relacl)
  WHERE grantee = 0
UNION ALL SELECT 'table', name, privilege_type || ' is granted to ' || grantee::regrole
    || CASE WHEN is_grantable THEN ', who may grant it on' ELSE '' END
  FROM ours, aclexplode(relacl)
  WHERE relkind <> 'S' AND grantee NOT IN (0, relowner)
    AND (is_grantable OR privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE'))
UNION ALL SELECT 'sequence', name, privilege_type || ' is granted to ' || grantee::regrole FROM ours, aclexplode(relacl)
  WHERE relkind = 'S' AND grantee NOT IN (0, relowner)
UNION ALL SELECT 'column', name || '.' || attname, 'has grants of its own' FROM ours
  JOIN pg_attribute a ON a.attrelid = ours.oid WHERE attacl IS NOT NULL
UNION ALL SELECT 'table', name, 'belongs to another role than the schema''s revision does' FROM ours
  WHERE relowner <> (SELECT relowner FROM ours WHERE relname = :of_nobody)
UNION ALL SELECT 'function', name, 'belongs to another role than the schema''s revision does' FROM functions
  WHERE proowner <> (SELECT relowner FROM ours WHERE relname = :of_nobody)
UNION ALL SELECT 'schema', nspname,
    'CREATE is granted to ' || CASE grantee WHEN 0 THEN 'everybody' ELSE grantee::regrole::text END
  FROM pg_namespace n, aclexplode(nspacl) WHERE n.oid IN (SELECT relnamespace FROM ours) AND privilege_type = 'CREATE'
    AND grantee NOT IN (nspowner, (SELECT relowner FROM ours WHERE relname = :of_nobody))
UNION ALL SELECT 'default privileges', coalesce(nspname, 'everywhere'), privilege_type || ' is granted to '
    || CASE grantee WHEN 0 THEN 'everybody' ELSE grantee::regrole::text END
  FROM pg_default_acl a LEFT JOIN pg_namespace n ON n.oid = defaclnamespace, aclexplode(defaclacl)
  WHERE grantee <> defaclrole
UNION ALL SELECT 'default privileges', 'everywhere', 'everybody may call a function that is made' WHERE NOT EXISTS (
  SELECT FROM pg_default_acl WHERE defaclobjtype = 'f' AND defaclnamespace = 0
    AND defaclrole = (SELECT relowner FROM ours WHERE relname = :of_nobody)
)
ORDER BY kind, name, breach
""")

_POLICIES = text(f"""
WITH {_OURS}
SELECT tables.name, relname, polname, polpermissive, polroles = '{{0}}' AS is_for_all_roles,
       polroles <> '{{0}}' AND polroles <> ARRAY[relowner] AS is_for_strangers,
       CASE polcmd WHEN '*' THEN 'ALL' WHEN 'r' THEN 'SELECT' ELSE polcmd::text END AS command,
       pg_get_expr(polqual, polrelid) AS using, pg_get_expr(polwithcheck, polrelid) AS check
FROM tables LEFT JOIN pg_policy ON polrelid = tables.oid ORDER BY tables.name, polname
""")

_GRANTS = text(f"""
WITH {_OURS}
SELECT name, relname, privilege_type, grantee::regrole::text AS role FROM ours, aclexplode(relacl)
WHERE relkind IN ('r', 'p') AND grantee NOT IN (0, relowner) ORDER BY name, privilege_type
""")


@dataclass(frozen=True)
class Breach:
    """Something that breaks a rule: `table public.runs`, and which."""

    kind: str
    name: str
    breach: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.breach}"


async def breaches(connection: AsyncConnection) -> list[Breach]:
    """Whatever breaks a rule. Any role may ask: the catalogue is open to all."""
    values = {"of_nobody": _OF_NOBODY}
    found = [Breach(*row) for row in await connection.execute(_BREACHES, values)]
    policies = (await connection.execute(_POLICIES, values)).all()
    for row in policies:
        found += [Breach("policy", f"{row.polname} on {row.name}", wrong) for wrong in _wrong_with(row)]
    guarded = {row.name for row in policies if row.command == "ALL" and row.is_for_all_roles and row.check}
    found += [
        Breach("table", name, "has no policy that binds every role, reading and writing")
        for name in sorted({row.name for row in policies} - guarded)
    ]
    for row in await connection.execute(_GRANTS, values):
        if row.privilege_type in NEVER.get(row.relname, ()):
            found.append(Breach("table", row.name, f"{row.privilege_type} is granted to {row.role}"))
    return found


def _wrong_with(row: Row[Any]) -> list[str]:
    if row.polname is None:
        return []
    if row.is_for_strangers:
        return ["is for some roles only, which are not the owner"]
    policy = Policy(row.relname, row.command, row.using, row.check, row.is_for_all_roles)
    if not row.polpermissive or policy == Policy(row.relname, "ALL", _OWN, _OWN) or policy in DOORS:
        return []
    return ["shows or takes other rows than the tenant's own, and is not listed in holdfast/store/catalogue.py"]
