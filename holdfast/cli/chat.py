"""`holdfast chat`: talk to an agent at the terminal; asks when a tool needs a confirmation."""

import sys
from typing import Annotated, Any

import typer

from holdfast.cli.connection import Api, Refused
from holdfast.cli.output import one_line, program

#: How long one request waits for the reply, in seconds.
_WAIT_S = 25


def chat(
    agent: Annotated[str, typer.Argument(help="The agent's name, such as support.")],
    text: Annotated[str | None, typer.Argument(help="One message; without it, a conversation.")] = None,
    conversation: Annotated[str | None, typer.Option(help="Go on with this conversation.")] = None,
) -> None:
    """Talk to an agent."""
    api = Api()
    if text is not None:
        _exchange(api, agent, text, conversation)
        return
    typer.echo(f"You talk to {agent}. Leave with Ctrl-D.", err=True)
    while (line := _read_line()) is not None:
        if line.strip():
            conversation = _exchange(api, agent, line, conversation)


def _read_line() -> str | None:
    try:
        return input("you> " if sys.stdin.isatty() else "")
    except EOFError:
        return None


def _exchange(api: Api, agent: str, text: str, conversation: str | None) -> str:
    """Send one message and show what comes of it; answers with the conversation's id."""
    body = {"agent": agent, "text": text, "conversation_id": conversation}
    accepted = api.post("/v1/messages", {name: value for name, value in body.items() if value is not None})
    asked: set[str] = set()
    run_id = accepted["run_id"]
    while True:
        run = api.get(f"/v1/runs/{run_id}", wait=_WAIT_S)
        if run["merged_into"] is not None:
            # An earlier run took the message in, and answers it.
            run_id = run["merged_into"]
            continue
        if run["completed_at"] is not None:
            typer.echo(run["reply"] or f"({run['status']})")
            return str(accepted["conversation_id"])
        if run["status"] == "requires_confirmation" and not _ask(api, run, asked):
            return str(accepted["conversation_id"])


def _ask(api: Api, run: dict[str, Any], asked: set[str]) -> bool:
    """Ask for each pending confirmation. False: nobody is here to ask, and the run goes on without us."""
    pending = api.get("/v1/confirmations", status="pending", run_id=run["id"])["data"]
    for confirmation in pending:
        if confirmation["id"] in asked:
            continue
        asked.add(confirmation["id"])
        if not sys.stdin.isatty():
            typer.echo(f"{_call(confirmation)} waits for a person until {confirmation['deadline'][:19]} UTC.")
            typer.echo(f"{program()} {_mend(confirmation)}")
            return False
        if confirmation["kind"] == "outcome":
            _resolve(api, confirmation)
        else:
            _decide(api, confirmation)
    return True


def _decide(api: Api, confirmation: dict[str, Any]) -> None:
    approved = typer.confirm(f"{_call(confirmation)} needs your confirmation. Run it?", default=False)
    reason = None if approved else typer.prompt("Reason (the agent is told)", default="", show_default=False) or None
    body = {
        "decision": "approve" if approved else "reject",
        "arguments_digest": confirmation["arguments_digest"],
        "reason": reason,
    }
    try:
        api.post(f"/v1/confirmations/{confirmation['id']}/decision", body)
    except Refused as refused:
        typer.echo(str(refused), err=True)


def _mend(confirmation: dict[str, Any]) -> str:
    if confirmation["kind"] == "outcome":
        return f"runs resolve {confirmation['tool_call_id']} committed|failed|run_again --evidence …"
    return f"confirmations approve {confirmation['id']}"


def _resolve(api: Api, confirmation: dict[str, Any]) -> None:
    typer.echo(f"Nobody knows what became of {_call(confirmation)}: it was handed out, and no answer came.")
    outcome = typer.prompt("committed, failed, run_again, or unknown", default="unknown")
    if outcome == "unknown":
        return
    body = {"outcome": outcome, "evidence": typer.prompt("How do you know?")}
    try:
        api.post(f"/v1/tool-calls/{confirmation['tool_call_id']}/resolution", body)
    except Refused as refused:
        typer.echo(str(refused), err=True)


def _call(confirmation: dict[str, Any]) -> str:
    return f"{confirmation['tool']}({one_line(confirmation['arguments'])})"
