"""`holdfast models`: which models stand behind which alias, and which of them can be used here."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.output import AsJson, show_json, show_table

if TYPE_CHECKING:
    from holdfast.config.models_yaml import ModelsFile

app = typer.Typer(help="Aliases, and the models behind them.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Aliases, and the models behind them."""


@app.command("list")
def list_models(
    agents: Annotated[
        Path, typer.Option(envvar="HOLDFAST_AGENTS", help="The agents file, which names the models file.")
    ] = Path("examples/shop/agents.yaml"),
    as_json: AsJson = False,
) -> None:
    """Every deployment, in the order in which an alias tries them, and what keeps it from being used here."""
    from holdfast.config import agents_yaml
    from holdfast.config.models_yaml import load_models

    # The demo model's variable is set by `holdfast dev` alone; without it, a file that has nothing else is refused.
    environ = {"HOLDFAST_DEMO_MODEL_URL": "http://127.0.0.1", **os.environ}
    models = load_models(agents_yaml.load_agents(agents).models_path, environ, allow_demo=True)
    deployments = _deployments(models)
    if as_json:
        return show_json({"object": "list", "data": deployments})
    rows = [
        [
            one["alias"],
            one["model"],
            "yes" if one["usable"] else f"no: {', '.join(one['unset'])} not set",
            ", ".join(one["falls_back_to"]),
        ]
        for one in deployments
    ]
    show_table("models", ["alias", "model", "usable", "falls back to"], rows)


def _deployments(models: "ModelsFile") -> list[dict[str, Any]]:
    unset: dict[tuple[str, str, int | None], list[str]] = {
        (one.alias, one.model, one.order): [] for one in models.deployments
    }
    for one in models.left_out:
        unset.setdefault((one.alias, one.model, one.order), []).append(one.variable)
    return [
        {
            "alias": alias,
            "model": model,
            "order": order,
            "usable": not variables,
            "unset": variables,
            "falls_back_to": list(models.fallbacks.get(alias, ())),
        }
        for (alias, model, order), variables in sorted(unset.items(), key=_as_tried)
    ]


def _as_tried(item: tuple[tuple[str, str, int | None], list[str]]) -> tuple[str, bool, int]:
    alias, _, order = item[0]
    return alias, order is None, order or 0
