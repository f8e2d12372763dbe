"""`holdfast audit`: read the audit log, verify its hash chains, export it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.connection import Api
from holdfast.cli.output import AsJson, Limit, show_json, show_table
from holdfast.domain.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from pydantic import SecretStr

    from holdfast.domain.audit import Head
    from holdfast.services.audit_heads import Verifier
    from holdfast.services.audit_verification import Tally
    from holdfast.store.engine import Database

app = typer.Typer(help="Read, verify and export the audit log.", no_args_is_help=True)

Tenant = Annotated[str | None, typer.Option(help="Of one tenant; without it, of all.")]

#: How many signed heads are looked up at once.
_HEADS_AT_ONCE = 500


@app.command("list")
def list_entries(
    kind: Annotated[str | None, typer.Option(help="Only this kind: message, tool_call, refusal, …")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only with this outcome: approved, forbidden, …")] = None,
    run: Annotated[str | None, typer.Option(help="Only of this run.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only about this message, tool call, key, …")] = None,
    person: Annotated[str | None, typer.Option(help="Only what this person did.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from this moment on: 2026-11-01T00:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Only before this moment.")] = None,
    after: Annotated[int, typer.Option(help="Only what comes after this entry.")] = 0,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Entries of your tenant's log, oldest first."""
    of_what = {"kind": kind, "outcome": outcome, "run_id": run, "subject_id": subject, "person": person}
    page = Api().get("/v1/audit", **of_what, since=since, until=until, after=after, limit=limit)
    if as_json:
        return show_json(page)
    rows = [
        [
            one["id"],
            one["created_at"][:19],
            f"{one['kind']} {one['outcome']}",
            one["tool"] or one["alias"] or "",
            one["person"] or "",
            one["subject_id"] or one["run_id"] or "",
        ]
        for one in page["data"]
    ]
    show_table("entries", ["entry", "at (UTC)", "what", "tool or model", "person", "of"], rows)


@app.command()
def verify(
    tenant: Tenant = None,
    anchors: Annotated[
        list[Path] | None, typer.Option(help="Signed heads: a file of anchors, a folder of them, or an export.")
    ] = None,
) -> None:
    """Find what was changed, removed, moved or inserted: a line for each, and exit code 1.

    Reads the database itself, as HOLDFAST_DATABASE_URL says. With --anchors it also finds a log that was cut or written
    anew; that needs HOLDFAST_AUDIT_PUBLIC_KEY_FILE.
    """
    import asyncio

    from holdfast.services.audit_verification import Tally

    tally = Tally()
    wrong = asyncio.run(_verify(tenant, anchors or [], tally))
    if wrong:
        typer.echo(f"{wrong} wrong in {tally.entries} entries of {tally.tenants} tenants", err=True)
        raise typer.Exit(1)
    typer.echo(
        f"clean: {tally.entries} entries of {tally.tenants} tenants, {tally.erased} of them erased in part, "
        f"{tally.heads} signed heads"
    )


async def _verify(tenant: str | None, anchors: list[Path], tally: "Tally") -> int:
    from holdfast.cli.environment import settings_of
    from holdfast.config.settings import VerifySettings
    from holdfast.services.audit_verification import wrong_in

    settings = settings_of(VerifySettings)
    verifier = _verifier(settings.audit_public_key_file) if anchors else None
    wrong = 0
    async with _database(settings.database_url) as database:
        for tenant_id in await _tenants(database, tenant):
            async for finding in wrong_in(database, tenant_id, tally):
                wrong += _tell(str(finding))
        for path in _files(anchors):
            assert verifier is not None, "it is made where there are anchors"
            async for line in _wrong_with_file(database, path, verifier, tenant, tally):
                wrong += _tell(line)
    return wrong


def _tell(line: str) -> int:
    typer.echo(line)
    return 1


async def _wrong_with_file(
    database: "Database", path: Path, verifier: "Verifier", tenant: str | None, tally: "Tally"
) -> AsyncIterator[str]:
    from holdfast.services.audit_verification import wrong_with_heads

    unsigned: list[str] = []
    heads = (head for head in _heads(path, verifier, unsigned) if tenant in (None, head.tenant_id))
    while batch := list(islice(heads, _HEADS_AT_ONCE)):
        async for finding in wrong_with_heads(database, batch, tally):
            yield str(finding)
    for line in unsigned:
        yield line


def _heads(path: Path, verifier: "Verifier", unsigned: list[str]) -> Iterator["Head"]:
    from holdfast.services.audit_heads import NotSigned

    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                head = verifier.read(line)
            except NotSigned as error:
                unsigned.append(f"{path}, line {number}: {error}")
                continue
            if head is not None:
                yield head


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise InvalidInput("anchors", f"--anchors: there is no {path}")
        yield from sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]


def _verifier(path: Path | None) -> "Verifier":
    from holdfast.services.audit_heads import Verifier

    variable = "HOLDFAST_AUDIT_PUBLIC_KEY_FILE"
    if path is None:
        raise ConfigurationError(
            f"{variable}: is not set; set it to the path of the signing key's public half in PEM (openssl pkey -pubout)"
        )
    try:
        return Verifier.of(path.read_text(encoding="utf-8", errors="replace"), variable)
    except OSError as error:
        raise ConfigurationError(f"{variable}: {path} can't be read: {error.strerror}") from None


@app.command()
def export(tenant: Tenant = None) -> None:
    """Print every entry as a line of JSON, and after each tenant's last one the signed head of its chain.

    Reads the database itself, as HOLDFAST_DATABASE_URL says, and signs with HOLDFAST_AUDIT_SIGNING_KEY.
    """
    import asyncio

    asyncio.run(_export(tenant))


async def _export(tenant: str | None) -> None:
    from holdfast.cli.environment import settings_of
    from holdfast.config.settings import ExportSettings
    from holdfast.services.audit_heads import Signer
    from holdfast.services.audit_log import AuditLog

    settings = settings_of(ExportSettings)
    signer = Signer.of(settings.audit_signing_key.get_secret_value(), "HOLDFAST_AUDIT_SIGNING_KEY")
    async with _database(settings.database_url) as database:
        for tenant_id in await _tenants(database, tenant):
            async for line in AuditLog(database).export(tenant_id, signer):
                typer.echo(line)


async def _tenants(database: "Database", tenant: str | None) -> list[str]:
    """The tenants asked for: one, or all."""
    from holdfast.services.audit_log import AuditLog

    known = await AuditLog(database).tenants()
    if tenant is not None and tenant not in known:
        raise InvalidInput("tenant", f"There is no tenant {tenant!r}, and no audit log of one.")
    return known if tenant is None else [tenant]


@asynccontextmanager
async def _database(url: "SecretStr") -> AsyncIterator["Database"]:
    from holdfast.store.engine import Database, create_engine

    database = Database(create_engine(url.get_secret_value(), pool_size=1))
    try:
        await database.check_role()
        yield database
    finally:
        await database.close()
