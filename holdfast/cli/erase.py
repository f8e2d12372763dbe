"""`holdfast erase`: take out what was said, and names; the record of what happened stays."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.domain.errors import InvalidInput

if TYPE_CHECKING:
    from holdfast.services.erasure import Erased, Scope


def erase(
    tenant: Annotated[str, typer.Option(help="Whose content.")],
    person: Annotated[
        str | None, typer.Option(help="Only this person: their name, their messages, and what answered them.")
    ] = None,
    before: Annotated[
        str | None, typer.Option(help="Only the content of runs that ended so long ago, such as 90d. Names stay.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Erase content and names, as the tables' owner. Can't be undone. Open runs are left: do it again later."""
    import asyncio

    from holdfast.services.erasure import Scope

    if person is not None and before is not None:
        raise InvalidInput("before", "Give --person or --before, not both.")
    if person is not None and not person.strip():
        raise InvalidInput("person", "--person: name somebody.")
    scope = Scope(tenant, person, None if before is None else _age(before))
    if not yes:
        typer.confirm(f"Erase content of tenant {tenant!r}, {scope}? It can't be undone", abort=True)
    erased = asyncio.run(_erase(scope))
    typer.echo(f"erased: {erased}")
    if erased.is_nothing and person is not None:
        typer.echo("nobody is known by this name, or not any more: was it meant so?", err=True)


def _age(written: str) -> timedelta:
    from pydantic import TypeAdapter, ValidationError

    from holdfast.domain.agents import Duration

    try:
        return TypeAdapter[timedelta](Duration).validate_python(written)
    except ValidationError:
        raise InvalidInput("before", f"--before: {written!r} is not an age; write it like 90d or 12h.") from None


async def _erase(scope: "Scope") -> "Erased":
    from holdfast.cli.environment import operator, settings_of
    from holdfast.config.settings import EraseSettings
    from holdfast.secrecy.erased_keys import ErasedKeys
    from holdfast.services.erasure import erase
    from holdfast.store.engine import Database, create_engine

    settings = settings_of(EraseSettings)
    keys = ErasedKeys.of(settings.key_pepper.get_secret_value())
    owner = Database(create_engine(settings.database_owner_url.get_secret_value(), pool_size=1))
    try:
        return await erase(owner, scope, keys, operator())
    finally:
        await owner.close()
