"""`holdfast keys`: API keys."""

from typing import Annotated

import typer

app = typer.Typer(help="API keys.", no_args_is_help=True)

_ROLES = "client, approver, operator, admin, auditor, or a name that policies ask for; give it once for each."


@app.callback()
def _group() -> None:
    """API keys."""


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="The tenant; made, if it is new.")],
    person: Annotated[str, typer.Option(help="Who acts with the key.")],
    role: Annotated[list[str] | None, typer.Option(help=_ROLES)] = None,
) -> None:
    """Make a key and print it: it can't be shown again. Needs the API's settings, and reaches the database itself."""
    import asyncio

    typer.echo(asyncio.run(_create(tenant, person, role or [])))


async def _create(tenant: str, person: str, roles: list[str]) -> str:
    from holdfast.config.settings import ApiSettings, load_settings
    from holdfast.domain.permissions import with_default_roles
    from holdfast.services.keys import Keys
    from holdfast.store.engine import Database, create_engine

    settings = load_settings(ApiSettings)
    database = Database(create_engine(settings.database_url.get_secret_value(), pool_size=1))
    try:
        await database.check_role()
        return await Keys(database, settings.key_pepper.get_secret_value()).create(
            tenant, person, with_default_roles(roles)
        )
    finally:
        await database.close()
