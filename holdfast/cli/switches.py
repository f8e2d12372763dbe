"""`holdfast stop`, `holdfast lift` and `holdfast switches`: the kill switch."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.output import AsJson, show_json, show_table

if TYPE_CHECKING:
    from holdfast.domain.switches import Scope

_COLUMNS = ("scope", "since", "by", "reason")

Agent = Annotated[str | None, typer.Option(help="Only this agent.")]
Tenant = Annotated[
    str | None, typer.Option(help="Not the key's tenant but this one, in the database (HOLDFAST_DATABASE_URL).")
]
Everything = Annotated[
    bool, typer.Option("--all", help="Every tenant, in the database, as its owner (HOLDFAST_DATABASE_OWNER_URL).")
]


def stop(
    reason: Annotated[str, typer.Option(help="Why. Whoever sends a message meanwhile reads it.")],
    agent: Agent = None,
    tenant: Tenant = None,
    everything: Everything = False,
    as_json: AsJson = False,
) -> None:
    """Throw the kill switch: new messages are refused, and what runs is stopped within five seconds."""
    if not tenant and not everything:
        from holdfast.cli.connection import Api

        return _show([Api().put(f"/v1/switches/{_scope_in_path(agent)}", {"reason": reason})], as_json=as_json)
    _show([_in_database(agent, tenant, everything=everything, reason=reason)], as_json=as_json)


def lift(agent: Agent = None, tenant: Tenant = None, everything: Everything = False, as_json: AsJson = False) -> None:
    """Lift the kill switch: new messages are taken again. What was stopped stays stopped."""
    if not tenant and not everything:
        from holdfast.cli.connection import Api

        was = Api().delete(f"/v1/switches/{_scope_in_path(agent)}")
    else:
        was = _in_database(agent, tenant, everything=everything, reason=None)
    if as_json:
        return show_json(was)
    typer.echo(f"lifted: {was['scope']}, which {was['thrown_by']} had thrown: {was['reason']}")


def switches(as_json: AsJson = False) -> None:
    """The kill switches that are thrown, of the key's tenant and for everything."""
    from holdfast.cli.connection import Api

    _show(Api().get("/v1/switches")["data"], as_json=as_json)


def _scope_in_path(agent: str | None) -> str:
    return f"agent:{agent}" if agent else "tenant"


def _in_database(agent: str | None, tenant: str | None, *, everything: bool, reason: str | None) -> dict[str, Any]:
    import asyncio

    from holdfast.domain.errors import InvalidInput
    from holdfast.domain.switches import EVERYBODY, Scope

    if everything and (agent or tenant):
        raise InvalidInput("all", "--all goes with neither --tenant nor --agent.")
    scope = Scope(EVERYBODY) if everything else Scope.read(tenant or "", _scope_in_path(agent))
    return asyncio.run(_set(scope, reason))


async def _set(scope: "Scope", reason: str | None) -> dict[str, Any]:
    """Throw a switch, or, without a reason, lift it; the API's processes find it there and carry it out."""
    from holdfast.cli.environment import operator
    from holdfast.domain.switches import EVERYBODY
    from holdfast.services.switches import Switches
    from holdfast.store.engine import Database, create_engine

    person = operator()
    database = Database(create_engine(_database_url(is_owner=scope.tenant_id == EVERYBODY), pool_size=1))
    try:
        if scope.tenant_id != EVERYBODY:
            await database.check_role()
        found = Switches(database)
        switch = await (found.lift(scope, person) if reason is None else found.throw(scope, reason, person))
    finally:
        await database.close()
    thrown_at = switch.thrown_at.isoformat()
    return {"scope": str(scope), "reason": switch.reason, "thrown_by": switch.thrown_by, "thrown_at": thrown_at}


def _database_url(*, is_owner: bool) -> str:
    from holdfast.cli.environment import settings_of
    from holdfast.config.settings import MigrateSettings, Settings

    if is_owner:
        return settings_of(MigrateSettings).database_owner_url.get_secret_value()
    return settings_of(Settings).database_url.get_secret_value()


def _show(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        return show_json({"object": "list", "data": found})
    rows = [[one["scope"], one["thrown_at"], one["thrown_by"], one["reason"]] for one in found]
    show_table("switches", _COLUMNS, rows)
