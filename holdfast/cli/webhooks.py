"""`holdfast webhooks`: addresses that are told of events."""

from typing import Annotated, Any

import typer

from holdfast.cli.output import AsJson, Limit, show_json, show_table

app = typer.Typer(help="Addresses that are told of events.", no_args_is_help=True)

WebhookId = Annotated[str, typer.Argument(metavar="ID")]


@app.command()
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="https://…")],
    event: Annotated[
        list[str] | None, typer.Option(help="A type of event, like run.completed; once for each. Without: every type.")
    ] = None,
) -> None:
    """Have a URL told of events, and print the secret that signs: it can't be shown again."""
    from holdfast.cli.connection import Api

    made = Api().post("/v1/webhooks", {"url": url, "events": event or []})
    _show_secret(made)


@app.command("list")
def list_webhooks(limit: Limit = 20, as_json: AsJson = False) -> None:
    """Show the webhooks of your tenant, newest first; never their secrets."""
    from holdfast.cli.connection import Api

    page = Api().get("/v1/webhooks", limit=limit)
    if as_json:
        return show_json(page)
    rows = [[one["id"], one["disabled_why"] or "enabled", one["url"], ", ".join(one["events"])] for one in page["data"]]
    show_table("webhooks", ["webhook", "state", "url", "events"], rows)


@app.command()
def enable(webhook_id: WebhookId) -> None:
    """Have a webhook told again that was disabled, of what happens from now on."""
    from holdfast.cli.connection import Api

    api = Api()
    known = api.get(f"/v1/webhooks/{webhook_id}")
    api.put(f"/v1/webhooks/{webhook_id}", {"url": known["url"], "events": known["events"], "enabled": True})
    typer.echo(f"enabled: {webhook_id}")


@app.command()
def rotate(
    webhook_id: WebhookId,
    grace_period: Annotated[str, typer.Option(help="How long the secret before signs too; 7d at most.")] = "1d",
) -> None:
    """Give a webhook another secret, and print it: it can't be shown again."""
    from holdfast.cli.connection import Api

    _show_secret(Api().post(f"/v1/webhooks/{webhook_id}/rotation", {"grace_period": grace_period}))


@app.command()
def delete(webhook_id: WebhookId) -> None:
    """Delete a webhook, with what it was told and was to be told."""
    from holdfast.cli.connection import Api

    Api().delete(f"/v1/webhooks/{webhook_id}")
    typer.echo(f"deleted: {webhook_id}")


@app.command()
def deliveries(
    webhook_id: WebhookId,
    status: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Show what a webhook was told, and is to be told, newest first."""
    from holdfast.cli.connection import Api

    page = Api().get(f"/v1/webhooks/{webhook_id}/deliveries", status=status, limit=limit)
    if as_json:
        return show_json(page)
    columns = ["id", "type", "run_id", "status", "attempts", "last_error", "next_attempt_at"]
    rows = [[one[name] if one[name] is not None else "" for name in columns] for one in page["data"]]
    show_table("deliveries", ["delivery", "event", "run", "status", "attempts", "error", "next attempt"], rows)


@app.command()
def replay(webhook_id: WebhookId, delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY")]) -> None:
    """Tell a delivery again, whatever became of it; one that waits is told at once."""
    from holdfast.cli.connection import Api

    again = Api().post(f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay", {})
    typer.echo(f"{again['status']}: {again['id']} ({again['type']})")


def _show_secret(made: dict[str, Any]) -> None:
    # Beside the secret, so that a script can take what is printed.
    typer.echo(f"{made['id']}  {made['url']}  {', '.join(made['events'])}", err=True)
    typer.echo(made["secret"])
