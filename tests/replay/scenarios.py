"""One run of each kind, whose history is recorded and replayed."""

from collections.abc import Awaitable, Callable

from holdfast.testing.replies import HttpError, Text, ToolCalls
from tests.harness.caller import Caller, Json
from tests.harness.stage import Stage

_PAY = ToolCalls([("pay", {"marker": "m", "amount": 1})])
_LOOK = ToolCalls([("look_up", {"marker": "m"})])


async def plain(ada: Caller, stage: Stage) -> Json:
    """A message without tools."""
    return await ada.ask("hello")


async def tool(ada: Caller, stage: Stage) -> Json:
    """A tool that the policy allows."""
    stage.provider.script(_LOOK)
    return await ada.ask("look")


async def several_tools(ada: Caller, stage: Stage) -> Json:
    """Calls that are allowed, confirmed and denied, in one step."""
    calls: list[tuple[str, Json | str]] = [
        ("look_up", {"marker": "m"}),
        ("pay", {"marker": "m", "amount": 1}),
        ("delete", {"marker": "m"}),
    ]
    stage.provider.script(ToolCalls(calls))
    return await _decided(ada, "approve")


async def approved(ada: Caller, stage: Stage) -> Json:
    """A confirmation, approved."""
    stage.provider.script(_PAY)
    return await _decided(ada, "approve")


async def rejected(ada: Caller, stage: Stage) -> Json:
    """A confirmation, rejected."""
    stage.provider.script(_PAY)
    return await _decided(ada, "reject")


async def expired(ada: Caller, stage: Stage) -> Json:
    """A confirmation that nobody decided."""
    stage.provider.script(_PAY)
    return await ada.ended(await ada.start("pay", agent="hasty"))


async def queued(ada: Caller, stage: Stage) -> Json:
    """A message that waited for the turn of its conversation."""
    stage.provider.script(_PAY)
    first = await ada.ask("pay")
    second = await ada.start("and now?", conversation_id=first["conversation_id"])
    await ada.get(f"/v1/runs/{second}", wait=1)
    await ada.decide(await ada.only_pending(first))
    return await ada.ended(second)


async def degraded(ada: Caller, stage: Stage) -> Json:
    """Models that don't answer within the agent's patience."""
    stage.provider.default = lambda _: HttpError(500)
    return await ada.ask("hello", agent="impatient")


async def out_of_steps(ada: Caller, stage: Stage) -> Json:
    """A model that never stops asking for tools."""
    stage.provider.default = lambda _: _LOOK
    return await ada.ask("look", agent="two_steps")


async def cancelled(ada: Caller, stage: Stage) -> Json:
    """A run that was cancelled while it waited for a person."""
    stage.provider.script(_PAY, Text("never asked for"))
    run = await ada.ask("pay")
    await stage.temporal.get_workflow_handle(f"{ada.tenant_id}:support:{run['message_id']}").cancel()
    return await ada.ended(run["id"])


async def run_again(ada: Caller, stage: Stage) -> Json:
    """A tool whose outcome was unknown, run again on a person's word, and unknown again."""
    stage.provider.script(ToolCalls([("hang_sending", {"marker": f"/nowhere/{ada.tenant_id}"})]))
    run = await ada.ask("send")
    first = await ada.only_pending(run)
    await _resolve(ada, first, "run_again")
    again: list[Json] = []
    while not again:
        again = [one for one in await ada.pending(await ada.run(run["id"])) if one["id"] != first["id"]]
    await _resolve(ada, again[0], "committed")
    return await ada.ended(run["id"])


async def not_confirmed(ada: Caller, stage: Stage) -> Json:
    """Nobody confirmed one of two calls in time, and its policy ends the run."""
    stage.provider.script(ToolCalls([("send", {"marker": "m"}), ("pay", {"marker": "m", "amount": 1})]))
    return await ada.ended(await ada.start("send and pay", agent="stopping"))


async def out_of_time(ada: Caller, stage: Stage) -> Json:
    """A run whose time was up while it waited for a person."""
    stage.provider.script(_PAY)
    return await ada.ended(await ada.start("pay", agent="brief"))


async def merged(ada: Caller, stage: Stage) -> Json:
    """A message that waited, and joined the turn in front of it."""
    stage.provider.script(_PAY)
    first = await ada.ask("pay", agent="steered")
    second = await ada.start("and now?", agent="steered", conversation_id=first["conversation_id"])
    await ada.get(f"/v1/runs/{second}", wait=1)
    await ada.decide(await ada.only_pending(first))
    return await ada.ended(second)


async def _resolve(ada: Caller, asked: Json, outcome: str) -> None:
    body = {"outcome": outcome, "evidence": "I looked."}
    response = await ada.http.post(f"/v1/tool-calls/{asked['tool_call_id']}/resolution", json=body)
    assert response.status_code == 200, response.text


async def handed_over(ada: Caller, stage: Stage) -> Json:
    """A call of the client's own tool, with which the run ends."""
    stage.provider.script(ToolCalls([("weather", {"town": "Rome"}), ("look_up", {"marker": "m"})]))
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    body = {"model": "support", "input": "Rome?", "tools": [tool]}
    assert (await ada.http.post("/v1/responses", json=body)).status_code == 200
    (run,) = (await ada.get("/v1/runs"))["data"]
    return await ada.ended(run["id"])


async def budget_raised(ada: Caller, stage: Stage) -> Json:
    """A budget without room for the first model call, which a person raises."""
    body = {"limit_usd": "0.001", "raise_by_usd": "1", "period": "day"}
    assert (await ada.http.put("/v1/budget", json=body)).status_code == 200
    run = await ada.ask("hello", agent="charged")
    await ada.decide(await ada.only_pending(run))
    return await ada.ended(run["id"])


async def budget_refused(ada: Caller, stage: Stage) -> Json:
    """A budget without room for the first model call, which nobody raises in time."""
    body = {"limit_usd": "0.001", "raise_by_usd": "1", "period": "day"}
    assert (await ada.http.put("/v1/budget", json=body)).status_code == 200
    return await ada.ended(await ada.start("hello", agent="charged_hasty"))


async def _decided(ada: Caller, decision: str) -> Json:
    run = await ada.ask("pay")
    await ada.decide(await ada.only_pending(run), decision)
    return await ada.ended(run["id"])


SCENARIOS: dict[str, Callable[[Caller, Stage], Awaitable[Json]]] = {
    scenario.__name__: scenario
    for scenario in (
        plain,
        tool,
        several_tools,
        approved,
        rejected,
        expired,
        queued,
        degraded,
        out_of_steps,
        cancelled,
        run_again,
        not_confirmed,
        out_of_time,
        merged,
        handed_over,
        budget_raised,
        budget_refused,
    )
}
