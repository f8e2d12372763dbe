"""`holdfast confirmations`: what waits for a person, and their decision."""

from typing import Annotated, Any

import typer

from holdfast.cli.connection import Api
from holdfast.cli.output import AsJson, Limit, one_line, read_object, show_json, show_table

app = typer.Typer(help="What waits for a person, and their decision.", no_args_is_help=True)


@app.command("list")
def list_confirmations(
    status: Annotated[str, typer.Option(help="pending, approved, rejected, …, or all.")] = "pending",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Confirmations, oldest first; those that wait, unless told otherwise."""
    page = Api().get("/v1/confirmations", status=None if status == "all" else status, limit=limit)
    if as_json:
        return show_json(page)
    rows = [
        [
            one["id"],
            one["status"] if one["kind"] == "call" else f"{one['status']}: what became of it?",
            f"{one['tool']}({one_line(one['arguments'])})",
            one["requested_by"],
            one["deadline"][:19],
        ]
        for one in page["data"]
    ]
    title = "confirmations" if status == "all" else f"{status} confirmations"
    show_table(title, ["confirmation", "status", "call", "requested by", "deadline (UTC)"], rows)


@app.command("show")
def show_confirmation(confirmation_id: str) -> None:
    """One confirmation, whole."""
    show_json(Api().get(f"/v1/confirmations/{confirmation_id}"))


@app.command()
def approve(confirmation_id: str) -> None:
    """Let the call run, with exactly the arguments that are shown."""
    _decide(confirmation_id, "approve", None)


@app.command()
def reject(
    confirmation_id: str, reason: Annotated[str | None, typer.Option(help="Why; the model is told.")] = None
) -> None:
    """Don't let the call run."""
    _decide(confirmation_id, "reject", reason)


@app.command()
def edit(confirmation_id: str, arguments: Annotated[str, typer.Argument(help="The new ones, as JSON.")]) -> None:
    """Let the call run with other arguments, which you give; all that are required, not only the changed ones."""
    _decide(confirmation_id, "edit", None, read_object(arguments))


@app.command()
def respond(confirmation_id: str, answer: Annotated[str, typer.Argument(help="What the model gets.")]) -> None:
    """Answer in the tool's place: the call does not run."""
    _decide(confirmation_id, "respond", answer)


def _decide(confirmation_id: str, decision: str, reason: str | None, arguments: dict[str, Any] | None = None) -> None:
    api = Api()
    shown = api.get(f"/v1/confirmations/{confirmation_id}")
    body = {"decision": decision, "arguments_digest": shown["arguments_digest"], "reason": reason}
    if arguments is not None:
        body["arguments"] = arguments
    decided = api.post(f"/v1/confirmations/{confirmation_id}/decision", body)
    runs_with = decided["edited_arguments"] or decided["arguments"]
    typer.echo(f"{decided['status']}: {decided['tool']}({one_line(runs_with)})")
