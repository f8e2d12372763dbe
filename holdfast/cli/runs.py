"""`holdfast runs`: what became of messages."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from holdfast.cli.connection import Api
from holdfast.cli.output import AsJson, Limit, harmless, one_line, read_object, show_json, show_table

app = typer.Typer(help="What became of messages.", no_args_is_help=True)


class Outcome(StrEnum):
    """What a person can say of a call whose outcome is unknown."""

    COMMITTED = "committed"
    FAILED = "failed"
    RUN_AGAIN = "run_again"


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
    none = "(none)" if run["completed_at"] else "(none yet)"
    typer.echo(f"reply         {harmless(run['reply'] or none)}")
    if run["links"]["temporal"]:
        typer.echo(f"temporal      {run['links']['temporal']}")


@app.command()
def events(
    run_id: str,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for what is to come, until the run ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """What happened in a run, a line each; with --json, a JSON object a line."""
    from holdfast.domain.events import TERMINAL

    api, last, has_more = Api(), 0, True
    while has_more:
        has_more = False
        for number, kind, data in api.events(f"/v1/runs/{run_id}/events", after=last, follow=follow):
            told = {"id": number, "event": kind, "data": data}
            typer.echo(json.dumps(told) if as_json else f"{number:>4}  {kind:<24}{one_line(data)}")
            # An API that stops ends the stream in the middle; another goes on.
            last, has_more = number, follow and kind not in TERMINAL


@app.command()
def cancel(run_id: str) -> None:
    """Stop a run: it makes no further step, and what waits for a person is withdrawn."""
    run = Api().post(f"/v1/runs/{run_id}/cancel", {})
    typer.echo(f"{run['id']}  {_state(run)}" + ("" if run["completed_at"] else ", and stops now"))


@app.command()
def resolve(
    tool_call_id: str,
    outcome: Annotated[Outcome, typer.Argument(help="What became of the call.")],
    evidence: Annotated[str, typer.Option(help="How you know.")],
    result: Annotated[str | None, typer.Option(help="What the model sees of it, as JSON.")] = None,
) -> None:
    """Say what became of a tool call whose outcome is unknown."""
    body: dict[str, Any] = {"outcome": outcome.value, "evidence": evidence}
    if result is not None:
        body["result"] = read_object(result)
    call = Api().post(f"/v1/tool-calls/{tool_call_id}/resolution", body)
    typer.echo(f"{call['status']}: {call['tool']}({one_line(call['arguments'])})")


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
                unknown = f" (runs resolve {call['id']} …)" if call["status"] == "ambiguous" else ""
                lines.append(f"  {call['tool']}({one_line(call['arguments'])}): {call['status']}{unknown}")
    return lines
