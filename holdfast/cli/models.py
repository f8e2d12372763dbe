"""`holdfast models`: which models stand behind which alias, and which of them can be used here."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.agents_file import AgentsOption, agents_file
from holdfast.cli.output import AsJson, show_json, show_table

if TYPE_CHECKING:
    from holdfast.config.models_yaml import Deployment, LeftOut, ModelsFile
    from holdfast.llm.pool import ModelPool

#: Characters of a table's cell; `--json` has the whole.
_WIDEST_CELL = 60

app = typer.Typer(help="Aliases, and the models behind them.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Aliases, and the models behind them."""


@app.command("list")
def list_models(
    agents: AgentsOption = None,
    as_json: AsJson = False,
) -> None:
    """Every deployment, in the order in which an alias tries them, and what keeps it from being used here."""
    from holdfast.config import agents_yaml
    from holdfast.config.models_yaml import load_models

    # The demo model's variable is set by `holdfast dev` alone; without it, a file that has nothing else is refused.
    environ = {"HOLDFAST_DEMO_MODEL_URL": "http://127.0.0.1", **os.environ}
    models = load_models(agents_yaml.load_agents(agents_file(agents)).models_path, environ, allow_demo=True)
    deployments = _deployments(models)
    if as_json:
        return show_json({"object": "list", "data": deployments})
    rows = [
        [
            one["deployment"],
            one["model"],
            "yes" if one["usable"] else f"no: {', '.join(one['unset'])} not set",
            ", ".join(one["falls_back_to"]),
        ]
        for one in deployments
    ]
    show_table("models", ["deployment", "model", "usable", "falls back to"], rows)


@app.command("test")
def probe_models(
    alias: Annotated[str | None, typer.Argument(help="Only the deployments of this alias.")] = None,
    agents: AgentsOption = None,
    as_json: AsJson = False,
) -> None:
    """Make one real call to each deployment: what came back, how long it took, what it cost. Not one may fail."""
    import asyncio
    import logging

    # What failed stands in the table.
    logging.getLogger("holdfast").addHandler(logging.NullHandler())
    results = asyncio.run(_results(agents_file(agents), alias))
    if as_json:
        show_json({"object": "list", "data": results})
    else:
        columns = ["deployment", "model", "answer", "ms", "cost"]
        show_table("models", columns, [[_cell(one[column]) for column in columns] for one in results])
    if any(one["failed"] for one in results):
        raise typer.Exit(1)


async def _results(agents: Path, alias: str | None) -> list[dict[str, Any]]:
    from contextlib import AsyncExitStack

    from holdfast.config import agents_yaml
    from holdfast.config.models_yaml import load_models
    from holdfast.dev import providers
    from holdfast.domain.errors import InvalidInput
    from holdfast.llm.pool import ModelPool

    async with AsyncExitStack() as stack:
        found, variables = providers.found_providers(os.environ)
        if not found:
            variables = {"HOLDFAST_DEMO_MODEL_URL": await stack.enter_async_context(providers.demo_model())}
        path = agents_yaml.load_agents(agents).models_path
        models = load_models(path, {**os.environ, **variables}, allow_demo=True)
        chosen = [one for one in models.deployments if alias in (None, one.alias)]
        if not chosen:
            unset = " or ".join(models.unusable.get(alias or "", ()))
            why = f"set {unset}" if unset else f"known are {', '.join(models.aliases)}"
            raise InvalidInput("alias", f"{path}: no deployment of {alias!r} can be used; {why}")
        pool = ModelPool(models.for_router(), models.router_settings, models.litellm_settings)
        return [await _result(pool, one) for one in chosen]


async def _result(pool: "ModelPool", deployment: "Deployment") -> dict[str, Any]:
    from holdfast.domain.errors import ModelError
    from holdfast.domain.model_calls import Completion

    told = {"alias": deployment.alias, "deployment": deployment.name, "model": deployment.model}
    try:
        answer = await pool.probe(deployment.name)
    except ModelError as error:
        reason = str(error).removeprefix(f"{deployment.name}: {deployment.name}: ")
        return {**told, "failed": True, "answer": f"failed: {reason}", "ms": None, "cost": None}
    said = repr(answer.text) if isinstance(answer, Completion) else f"a vector of {len(answer.vectors[0])} numbers"
    cost = "unpriced" if answer.usage.cost_usd is None else f"${answer.usage.cost_usd.normalize():f}"
    return {**told, "failed": False, "answer": said, "ms": answer.latency_ms, "cost": cost}


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _WIDEST_CELL else f"{text[: _WIDEST_CELL - 1]}…"


def _deployments(models: "ModelsFile") -> list[dict[str, Any]]:
    """Each deployment once, by alias and in the order in which it is tried."""
    unset: dict[str, list[str]] = {}
    for left_out in models.left_out:
        unset.setdefault(left_out.name, []).append(left_out.variable)
    # One that lacks two variables is left out twice.
    found: dict[str, Deployment | LeftOut] = {one.name: one for one in models.deployments}
    found |= {one.name: one for one in models.left_out}
    return [
        {
            "deployment": one.name,
            "alias": one.alias,
            "model": one.model,
            "order": one.order,
            "usable": one.name not in unset,
            "unset": unset.get(one.name, []),
            "falls_back_to": list(models.fallbacks.get(one.alias, ())),
        }
        for one in sorted(found.values(), key=_as_tried)
    ]


def _as_tried(one: "Deployment | LeftOut") -> tuple[str, bool, int]:
    return one.alias, one.order is None, one.order or 0
