"""`holdfast budget`: what the tenant's model calls may cost."""

from typing import Annotated, Any

import typer

from holdfast.cli.connection import Api
from holdfast.cli.output import AsJson, show_json

app = typer.Typer(help="What model calls may cost.", no_args_is_help=True)


@app.command()
def show(as_json: AsJson = False) -> None:
    """The budget, and what is spent of it."""
    _show(Api().get("/v1/budget"), as_json=as_json)


@app.command("set")
def set_budget(
    limit: Annotated[str, typer.Option(help="The limit, in US dollars.")],
    period: Annotated[str, typer.Option(help="What the limit is for: day, month or total.")] = "month",
    raise_by: Annotated[
        str | None, typer.Option(help="By how much a person is asked to raise it; without it, nobody is asked.")
    ] = None,
    approver: Annotated[
        list[str] | None, typer.Option(help="A role that may raise and set it; say it once for each.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set the budget, whole: what is not said is not kept from before."""
    body = {"limit_usd": limit, "period": period, "raise_by_usd": raise_by, "approvers": approver or []}
    _show(Api().put("/v1/budget", body), as_json=as_json)


def _show(budget: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        return show_json(budget)
    typer.echo(f"limit      ${budget['limit_usd']} ({budget['period']})")
    typer.echo(f"spent      ${budget['spent_usd']}")
    typer.echo(f"reserved   ${budget['reserved_usd']}")
    typer.echo(f"raise by   {'nobody is asked' if budget['raise_by_usd'] is None else '$' + budget['raise_by_usd']}")
    typer.echo(f"approvers  {', '.join(budget['approvers']) or 'anybody'}")
