"""No table, view, index, function, sequence or grant lets one tenant see another: the catalogue itself says so.

Each rule is broken here once, in a transaction that is rolled back, and the scan names what breaks it.
"""

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from holdfast.store.catalogue import DOORS, NEVER, breaches
from holdfast.store.tables.schema import metadata
from tests.harness.stage import Stage

GOOD = """
CREATE TABLE notes (tenant_id text NOT NULL, note_id text NOT NULL, run_id text, PRIMARY KEY (tenant_id, note_id));
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE notes FORCE ROW LEVEL SECURITY;
CREATE POLICY notes_of_tenant ON notes USING (tenant_id = (SELECT holdfast_tenant()))
  WITH CHECK (tenant_id = (SELECT holdfast_tenant()));
GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO holdfast_app;
"""

_TABLE = "table public.notes "
_POLICY = "has no policy that binds every role, reading and writing"
_UNLISTED = "shows or takes other rows than the tenant's own, and is not listed in holdfast/store/catalogue.py"
_FUNCTION = "CREATE FUNCTION peep() RETURNS bigint LANGUAGE sql {} AS 'SELECT count(*) FROM public.runs';"
_SAFE = "REVOKE ALL ON FUNCTION peep() FROM PUBLIC;"

#: What breaks a rule, by the name that the scan gives it.
BROKEN = {
    _TABLE + "has no row-level security": "ALTER TABLE notes DISABLE ROW LEVEL SECURITY",
    _TABLE + "does not force row-level security on its owner": "ALTER TABLE notes NO FORCE ROW LEVEL SECURITY",
    _TABLE + "has no column tenant_id of type text, NOT NULL": "CREATE TABLE bare (id text); ALTER TABLE notes"
    " DROP CONSTRAINT notes_pkey; ALTER TABLE notes ALTER tenant_id DROP NOT NULL",
    _TABLE + _POLICY: "DROP POLICY notes_of_tenant ON notes",
    f"policy half on public.notes {_UNLISTED}": "DROP POLICY notes_of_tenant ON notes;"
    "CREATE POLICY half ON notes USING (tenant_id = (SELECT holdfast_tenant()))",
    f"policy wide on public.notes {_UNLISTED}": "CREATE POLICY wide ON notes FOR SELECT USING (true)",
    "policy few on public.notes is for some roles only, which are not the owner": "CREATE POLICY few ON notes"
    " TO holdfast_app USING (tenant_id = (SELECT holdfast_tenant()))",
    "policy nosy on public.notes reads another table: tenants": "CREATE POLICY nosy ON notes"
    " USING (EXISTS (SELECT FROM tenants))",
    "policy calls on public.notes calls a function of ours that is not holdfast_tenant: public.peep": _FUNCTION.format(
        "SET search_path = pg_catalog"
    )
    + "CREATE POLICY calls ON notes USING (peep() > 0)",
    "index one on public.notes is unique over all tenants: tenant_id must come first": "CREATE UNIQUE INDEX one"
    " ON notes (note_id, tenant_id)",
    "index sly on public.notes is unique over all tenants: tenant_id must come first": "CREATE UNIQUE INDEX sly"
    " ON notes ((tenant_id || note_id))",
    "foreign key far on public.notes does not lead from tenant_id to tenant_id": "CREATE TABLE others (id text PRIMARY"
    " KEY); ALTER TABLE notes ADD CONSTRAINT far FOREIGN KEY (run_id) REFERENCES others",
    "view public.seen acts as its owner: it needs security_invoker": "CREATE VIEW seen AS SELECT * FROM notes",
    "table public.kept is of a kind that row-level security does not bind": "CREATE MATERIALIZED VIEW kept AS"
    " SELECT * FROM notes",
    _TABLE + "has a rule, which can read for anybody": "CREATE RULE also AS ON INSERT TO notes DO ALSO NOTHING",
    "function public.peep acts as its owner (SECURITY DEFINER)": _FUNCTION.format("SECURITY DEFINER") + _SAFE,
    "function public.peep has no search_path of its own": _FUNCTION.format("") + _SAFE,
    "function public.peep can be called by everybody": _FUNCTION.format("SET search_path = pg_catalog")
    + "GRANT EXECUTE ON FUNCTION peep() TO PUBLIC",
    _TABLE + "SELECT is granted to everybody": "GRANT SELECT ON notes TO PUBLIC",
    _TABLE + "TRUNCATE is granted to holdfast_app": "GRANT TRUNCATE ON notes TO holdfast_app",
    _TABLE + "SELECT is granted to holdfast_app, who may grant it on": "GRANT SELECT ON notes TO holdfast_app"
    " WITH GRANT OPTION",
    "table public.audit DELETE is granted to holdfast_app": "GRANT DELETE ON audit TO holdfast_app",
    "table public.steps UPDATE is granted to holdfast_app": "GRANT UPDATE ON steps TO holdfast_app",
    "column public.audit.detail has grants of its own": "GRANT UPDATE (detail) ON audit TO holdfast_app",
    "sequence public.numbers USAGE is granted to holdfast_app": "CREATE SEQUENCE numbers; GRANT USAGE ON SEQUENCE"
    " numbers TO holdfast_app",
    _TABLE + "belongs to another role than the schema's revision does": "GRANT CREATE ON SCHEMA public TO holdfast_app;"
    "ALTER TABLE notes OWNER TO holdfast_app",
    "schema public CREATE is granted to holdfast_app": "GRANT CREATE ON SCHEMA public TO holdfast_app",
    "schema public CREATE is granted to everybody": "GRANT CREATE ON SCHEMA public TO PUBLIC",
    "default privileges public SELECT is granted to everybody": "ALTER DEFAULT PRIVILEGES IN SCHEMA public"
    " GRANT SELECT ON TABLES TO PUBLIC",
    "default privileges everywhere everybody may call a function that is made": "ALTER DEFAULT PRIVILEGES"
    " GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
    "table elsewhere.notes has no row-level security": "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.notes"
    " (tenant_id text NOT NULL)",
}


async def named(connection: AsyncConnection) -> list[str]:
    return [str(breach) for breach in await breaches(connection)]


async def run(connection: AsyncConnection, statements: str) -> None:
    for statement in statements.split(";"):
        if statement.strip():
            await connection.exec_driver_sql(statement)


async def test_nothing_breaks_a_rule(stage: Stage) -> None:
    async with stage.database.tenant("anybody") as connection:
        assert await named(connection) == []


async def test_what_is_listed_is_there(stage: Stage) -> None:
    tables = {*metadata.tables, "alembic_version"}
    policies = await stage.rows("SELECT tablename, cmd, qual, with_check, roles FROM pg_policies")
    made = {(row["tablename"], row["cmd"], row["qual"], row["with_check"]) for row in policies}

    assert {door.table for door in DOORS} | NEVER.keys() <= tables
    assert {(door.table, door.command, door.using, door.check) for door in DOORS} <= made


@pytest.mark.parametrize("name", BROKEN)
async def test_what_breaks_a_rule_is_named(stage: Stage, name: str) -> None:
    engine = create_async_engine(stage.owner_url)
    try:
        async with engine.connect() as connection:
            await run(connection, GOOD)
            assert await named(connection) == []
            await run(connection, BROKEN[name])
            assert name in await named(connection)
            await connection.rollback()
    finally:
        await engine.dispose()
