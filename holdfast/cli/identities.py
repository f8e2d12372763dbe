"""`holdfast identities`: which keys, tokens and accounts are the same person's."""

from typing import Annotated

import typer

from holdfast.cli.output import AsJson, show_json, show_table

app = typer.Typer(help="Which keys, tokens and accounts are the same person's.", no_args_is_help=True)

_Kind = Annotated[str, typer.Argument(help="key, oidc or slack")]
_Subject = Annotated[str, typer.Argument(help="The key's id, the token's subject, the account.")]


@app.command()
def link(
    kind: _Kind,
    subject: _Subject,
    principal: Annotated[str, typer.Argument(help="Who acts with it.")],
    role: Annotated[
        list[str] | None, typer.Option(help="What an account of Slack may do; repeatable. Others bring their own.")
    ] = None,
) -> None:
    """Have a key, a token's subject or an account act as a principal."""
    from holdfast.cli.connection import Api

    link = {"kind": kind, "subject": subject, "principal": principal, "roles": role or []}
    linked = Api().put("/v1/identities", link)
    roles = f" with the roles {', '.join(linked['roles'])}" if linked["roles"] else ""
    typer.echo(f"{linked['kind']} {linked['subject']} acts as {linked['principal']}{roles}")
    if kind == "slack" and not roles:
        typer.echo("It may do nothing yet: link it again with --role, such as --role client")


@app.command()
def unlink(kind: _Kind, subject: _Subject) -> None:
    """Have it act for itself again."""
    from holdfast.cli.connection import Api

    was = Api().delete("/v1/identities", kind=kind, subject=subject)
    typer.echo(f"{was['kind']} {was['subject']} acts as {was['principal']} no more")


@app.command("list")
def list_identities(as_json: AsJson = False) -> None:
    """Show what is linked, by principal."""
    from holdfast.cli.connection import Api

    page = Api().get("/v1/identities")
    if as_json:
        return show_json(page)
    rows = [
        [one["principal"], one["kind"], one["subject"], ", ".join(one["roles"]), one["created_at"]]
        for one in page["data"]
    ]
    show_table("linked identities", ["principal", "kind", "subject", "roles", "since"], rows)
