"""`holdfast runs`: what became of messages."""

from typing import Annotated, Any

import typer

from holdfast.cli.connection import Api
from holdfast.cli.output import AsJson, Limit, one_line, show_json, show_table

app = typer.Typer(help="What became of messages.", no_args_is_help=True)


@app.command("list")
def list_runs(
    status: Annotated[str | None, typer.Option(help="Only runs in this state.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Runs, newest first."""
    page = Api().get("/v1/runs", status=status, limit=limit)
    if as_json:
        return show_json(page)
    rows = [[run["id"], run["agent"], _state(run), run["created_at"][:19], run["reply"] or ""] for run in page["data"]]
    show_table("runs", ["run", "agent", "status", "created", "reply"], rows)


@app.command("show")
def show_run(run_id: str, as_json: AsJson = False) -> None:
    """One run: its steps, tool calls and reply."""
    run = Api().get(f"/v1/runs/{run_id}")
    if as_json:
        return show_json(run)
    typer.echo(f"{run['id']}  {_state(run)}")
    typer.echo(f"agent         {run['agent']} (version {run['agent_version']})")
    typer.echo(f"conversation  {run['conversation_id']}")
    for line in _story(run):
        typer.echo(line)
    usage = run["usage"]
    cost = "unpriced" if usage["cost_usd"] is None else f"${usage['cost_usd']}"
    typer.echo(f"usage         {usage['prompt_tokens']} + {usage['completion_tokens']} tokens, {cost}")
    typer.echo(f"reply         {run['reply'] or '(none yet)'}")
    if run["links"]["temporal"]:
        typer.echo(f"temporal      {run['links']['temporal']}")


def _state(run: dict[str, Any]) -> str:
    return f"{run['status']} (degraded)" if run["degraded"] else str(run["status"])


def _story(run: dict[str, Any]) -> list[str]:
    lines = []
    for step in run["steps"]:
        lines.append(f"step {step['step']}        {step['alias']}: {step['model']}, {step['latency_ms']} ms")
        failed = [attempt for attempt in step["attempts"] if attempt["failure"]]
        lines += [f"  {attempt['deployment']} did not answer: {attempt['failure']}" for attempt in failed]
        for call in run["tool_calls"]:
            if call["step"] == step["step"]:
                lines.append(f"  {call['tool']}({one_line(call['arguments'])}): {call['status']}")
    return lines
