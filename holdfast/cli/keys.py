"""`holdfast keys`: API keys."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.output import AsJson, Limit, show_json, show_table

if TYPE_CHECKING:
    from datetime import timedelta

    from holdfast.services.keys import NewKey

app = typer.Typer(help="API keys.", no_args_is_help=True)

_ROLES = "client, approver, operator, admin, auditor, or a name that policies ask for; give it once for each."
_TENANT = (
    "The tenant; made, if it is new. Reaches the database itself, with the API's settings. Without: your own key's."
)


@app.command()
def create(
    person: Annotated[str, typer.Option(help="Who acts with the key.")],
    tenant: Annotated[str | None, typer.Option(help=_TENANT)] = None,
    role: Annotated[list[str] | None, typer.Option(help=_ROLES)] = None,
    expires: Annotated[str | None, typer.Option(help="How long it lasts, like 90d or 12h; without: for ever.")] = None,
) -> None:
    """Make a key and print it: it can't be shown again. Without a role that allows anything: client and approver."""
    roles = role or []
    made = _by_api(person, roles, expires) if tenant is None else _by_database(tenant, person, roles, expires)
    until = "for ever" if made["expires_at"] is None else f"until {made['expires_at']}"
    # Beside the key, so that a script can take what is printed.
    typer.echo(f"{made['id']}  {made['person']}  {', '.join(made['roles'])}  {until}", err=True)
    typer.echo(made["secret"])


@app.command("list")
def list_keys(limit: Limit = 20, as_json: AsJson = False) -> None:
    """Show the keys of your tenant, newest first; never the keys themselves."""
    from holdfast.cli.connection import Api

    page = Api().get("/v1/keys", limit=limit)
    if as_json:
        return show_json(page)
    columns = ["id", "person", "roles", "status", "expires_at", "last_used_at", "created_by"]
    rows = [
        [", ".join(key["roles"]) if name == "roles" else key[name] or "" for name in columns] for key in page["data"]
    ]
    show_table("keys", ["key", "person", "roles", "status", "expires", "last used", "made by"], rows)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Revoke a key, for ever. Every process refuses it within 5 seconds."""
    from holdfast.cli.connection import Api

    key = Api().delete(f"/v1/keys/{key_id}")
    typer.echo(f"{key['status']}: {key['id']} of {key['person']}")


def _by_api(person: str, roles: list[str], expires: str | None) -> dict[str, Any]:
    from holdfast.cli.connection import Api

    made: dict[str, Any] = Api().post("/v1/keys", {"person": person, "roles": roles, "expires_in": expires})
    return made


def _by_database(tenant: str, person: str, roles: list[str], expires: str | None) -> dict[str, Any]:
    import asyncio

    made = asyncio.run(_create(tenant, person, roles, _duration(expires)))
    key = made.key
    until = None if key.expires_at is None else key.expires_at.isoformat()
    return {"id": key.key_id, "person": person, "roles": key.roles, "expires_at": until, "secret": made.secret}


def _duration(expires: str | None) -> "timedelta | None":
    from pydantic import TypeAdapter, ValidationError

    from holdfast.domain.agents import Duration
    from holdfast.domain.errors import InvalidInput

    if expires is None:
        return None
    try:
        found: timedelta = TypeAdapter(Duration).validate_python(expires)
    except ValidationError:
        raise InvalidInput("expires", f"--expires {expires!r} is not a time; write it like 90d or 12h.") from None
    return found


async def _create(tenant: str, person: str, roles: list[str], expires_in: "timedelta | None") -> "NewKey":
    from holdfast.cli.environment import operator, settings_of
    from holdfast.config.settings import ApiSettings
    from holdfast.domain.permissions import with_default_roles
    from holdfast.services.keys import Keys
    from holdfast.store.engine import Database, create_engine

    settings = settings_of(ApiSettings)
    database = Database(create_engine(settings.database_url.get_secret_value(), pool_size=1))
    try:
        await database.check_role()
        keys = Keys(database, settings.key_pepper.get_secret_value())
        return await keys.create(
            tenant, person, with_default_roles(roles), expires_in=expires_in, created_by=operator()
        )
    finally:
        await database.close()
