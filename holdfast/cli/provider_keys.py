"""`holdfast provider-keys`: tenants' own keys of model providers. Reaches the database itself, as `keys` does."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from holdfast.cli.output import AsJson, show_json, show_table

if TYPE_CHECKING:
    from holdfast.domain.permissions import Caller
    from holdfast.services.provider_keys import ProviderKeys
    from holdfast.store.provider_keys import SealedKey

app = typer.Typer(help="Tenants' own keys of model providers.", no_args_is_help=True)

Tenant = Annotated[str, typer.Option(help="Whose key it is.")]
Provider = Annotated[str, typer.Argument(help="The provider: openai, anthropic, …")]
Result = TypeVar("Result")


@app.command("set")
def set_key(tenant: Tenant, provider: Provider) -> None:
    """Set a tenant's key of a provider. It is asked for, or read from standard input: never an argument."""
    key = _read_key()
    kept = _on_database(tenant, lambda keys, caller: keys.put(caller, provider, key))
    typer.echo(f"{provider}: set{_hint(kept)}")


@app.command("list")
def list_keys(tenant: Tenant, as_json: AsJson = False) -> None:
    """The providers of which a tenant has a key of its own."""
    kept = _on_database(tenant, lambda keys, caller: keys.all_of(caller.tenant_id))
    shown = [_shown(key) for key in kept]
    if as_json:
        return show_json({"object": "list", "data": shown})
    show_table("provider keys", ["provider", "hint", "set by", "set at"], [list(row.values()) for row in shown])


@app.command()
def remove(tenant: Tenant, provider: Provider) -> None:
    """Remove a tenant's key: its calls are made with the deployment's from then on."""
    _on_database(tenant, lambda keys, caller: keys.remove(caller, provider))
    typer.echo(f"{provider}: removed")


def _read_key() -> str:
    import sys

    if sys.stdin.isatty():
        return str(typer.prompt("key", hide_input=True)).strip()
    return sys.stdin.read().strip()


def _hint(key: "SealedKey") -> str:
    return f" (…{key.hint})" if key.hint else ""


def _shown(key: "SealedKey") -> dict[str, Any]:
    return {
        "provider": key.provider,
        "hint": key.hint,
        "created_by": key.created_by,
        "created_at": key.created_at.isoformat(),
    }


def _on_database(tenant: str, act: "Callable[[ProviderKeys, Caller], Awaitable[Result]]") -> Result:
    import asyncio

    return asyncio.run(_acted(tenant, act))


async def _acted(tenant: str, act: "Callable[[ProviderKeys, Caller], Awaitable[Result]]") -> Result:
    from holdfast.cli.environment import operator, settings_of
    from holdfast.config.settings import SealingSettings
    from holdfast.domain.permissions import Caller
    from holdfast.services.provider_keys import ProviderKeys
    from holdfast.store.engine import Database, create_engine

    settings = settings_of(SealingSettings)
    database = Database(create_engine(settings.database_url.get_secret_value(), pool_size=1))
    try:
        await database.check_role()
        return await act(ProviderKeys(database, settings.keyring), Caller(tenant, operator()))
    finally:
        await database.close()
