"""`holdfast agents`: apply agents, and list them."""

from pathlib import Path

import typer

from holdfast.cli.connection import Api
from holdfast.cli.output import AsJson, show_json, show_table

app = typer.Typer(help="Apply agents, and list them.", no_args_is_help=True)


@app.command()
def apply(file: Path) -> None:
    """Make the agents of a file the newest ones; new messages use them."""
    from holdfast.config.agents_yaml import load_agents

    api = Api()
    for spec in load_agents(file).agents:
        applied = api.put(f"/v1/agents/{spec.name}", spec.model_dump(mode="json"))
        typer.echo(f"{applied['name']}: version {applied['version']}")


@app.command("list")
def list_agents(as_json: AsJson = False) -> None:
    """Every agent in its newest version."""
    page = Api().get("/v1/agents")
    if as_json:
        return show_json(page)
    rows = [[agent["name"], agent["version"], agent["spec"]["model"]] for agent in page["data"]]
    show_table("agents", ["agent", "version", "model"], rows)
