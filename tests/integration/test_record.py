"""What a run leaves behind: audit rows, and a history that tells the story and stays small."""

import json
from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory

from holdfast.temporal.codec import SealingCodec
from holdfast.testing.provider import ScriptedProvider, tool_then_text
from holdfast.testing.replies import HttpError, Text, ToolCalls
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.stage import KEYRING, Stage
from workflows.names import SEARCH_ATTRIBUTES

AUDIT = "SELECT * FROM audit WHERE tenant_id = $1 AND run_id IS NOT NULL ORDER BY audit_id"


async def history(caller: Caller, stage: Stage, run: Json) -> WorkflowHistory:
    """The history of a run's workflow, which has ended."""
    handle = stage.temporal.get_workflow_handle(f"{caller.tenant_id}:{run['agent']}:{run['message_id']}")
    await handle.result()
    return await handle.fetch_history()


async def test_every_model_call_and_tool_call_leaves_an_audit_row(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    provider.script(
        HttpError(500), HttpError(500), ToolCalls([("look_up", {"marker": "m"}), ("look_up", {})]), Text("Done.")
    )
    run = await ada.ask("look")
    rows = await stage.rows(AUDIT, ada.tenant_id)

    assert [(row["kind"], row["outcome"], row["step"], row["attempt"]) for row in rows] == [
        ("message", "accepted", None, None),
        ("model_call", "failed", 1, None),
        ("model_call", "answered", 1, None),
        ("tool_call", "failed", 1, None),
        ("tool_call", "dispatched", 1, 1),
        ("tool_call", "succeeded", 1, 1),
        ("model_call", "answered", 2, None),
        ("message", "replied", None, None),
        ("run", "completed", None, None),
    ]
    assert {row["run_id"] for row in rows} == {run["id"]}
    answered = rows[2]
    assert (answered["alias"], answered["model"]) == ("quality", "scripted-quality")
    assert answered["prompt_tokens"] > 0
    assert answered["completion_tokens"] > 0
    assert answered["latency_ms"] >= 0
    assert {row["tool"] for row in rows[4:6]} == {"look_up"}
    assert {row["subject_id"] for row in rows[4:6]} == {run["tool_calls"][0]["id"]}


async def test_a_confirmation_leaves_who_and_what(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay", {"marker": "m", "amount": 1})]))
    run = await ada.ask("pay")
    await ada.decide(await ada.only_pending(run))
    await ada.run(run["id"])
    rows = await stage.rows(AUDIT, ada.tenant_id)

    assert [(row["kind"], row["outcome"], row["person"], row["via"]) for row in rows] == [
        ("message", "accepted", "ada", None),
        ("model_call", "answered", None, None),
        ("confirmation", "pending", None, None),
        ("confirmation", "approved", "ada", "api"),
        ("tool_call", "dispatched", None, None),
        ("tool_call", "succeeded", None, None),
        ("model_call", "answered", None, None),
        ("message", "replied", None, None),
        ("run", "completed", None, None),
    ]


async def test_a_message_without_tools_takes_sixteen_events_and_two_workflow_tasks(ada: Caller, stage: Stage) -> None:
    found = await history(ada, stage, await ada.ask("hello"))

    assert len(found.events) <= 16
    completed = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    assert [event.event_type for event in found.events].count(completed) <= 2


async def test_a_message_with_one_tool_takes_thirty_events(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    provider.default = tool_then_text("look_up", {"marker": "m"})

    assert len((await history(ada, stage, await ada.ask("look"))).events) <= 30


async def test_history_does_not_grow_with_the_conversation(ada: Caller, stage: Stage) -> None:
    first = await ada.ask("hello " * 100)
    last = first
    for _ in range(9):
        last = await ada.ask("hello " * 100, conversation_id=first["conversation_id"])

    sizes = [len((await history(ada, stage, run)).to_json()) for run in (first, last)]
    assert sizes[1] <= sizes[0] + 100


async def opened(ada: Caller, *messages: Message) -> list[Payload]:
    """Every payload in messages of Temporal, as whoever has the keys sees it."""
    return await SealingCodec(KEYRING, ada.tenant_id).decode(
        [each for message in messages for each in payloads_in(message)]
    )


def payloads_in(message: Message) -> Iterator[Payload]:
    if isinstance(message, Payload):
        yield message
        return
    for _, value in message.ListFields():
        parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, Iterable) else [value]
        for part in parts:
            if isinstance(part, Message):
                yield from payloads_in(part)


async def test_no_text_of_anybody_stands_in_the_history(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    canaries = ["canary-of-the-user", "canary-of-the-model", "canary-of-the-arguments", "canary-of-the-reason"]
    provider.script(ToolCalls([("pay", {"marker": canaries[2], "amount": 1})]), Text(canaries[1]))
    run = await ada.ask(canaries[0])
    await ada.decide(await ada.only_pending(run), "reject", reason=canaries[3])
    run = await ada.run(run["id"])
    found = await history(ada, stage, run)
    payloads = b"".join([payload.data for payload in await opened(ada, *found.events)])

    assert run["reply"] == canaries[1]
    assert [canary for canary in canaries if canary.encode() in payloads] == []
    assert run["id"].encode() in payloads, "this search can find something"


async def test_the_temporal_ui_tells_the_story(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("pay", {"marker": "m", "amount": 1})]))
    run = await ada.ask("pay")
    handle = stage.temporal.get_workflow_handle(f"{ada.tenant_id}:support:{run['message_id']}")
    attributes: dict[str, object] = {}

    async def shows_what_it_waits_for() -> bool:
        # The row is committed before the workflow's task is.
        shown = (await handle.describe()).typed_search_attributes
        attributes.update({pair.key.name: pair.value for pair in shown if pair.key.name in SEARCH_ATTRIBUTES})
        return "PendingTool" in attributes

    await until(shows_what_it_waits_for)
    await ada.decide(await ada.only_pending(run))
    found = await history(ada, stage, run)

    assert attributes == {
        "TenantId": ada.tenant_id,
        "AgentName": "support",
        "ConversationId": run["conversation_id"],
        "RunState": "requires_confirmation",
        "PendingTool": "pay",
    }
    summaries = [
        json.loads(payload.data)
        for payload in await opened(ada, *(event.user_metadata for event in found.events))
        if payload.metadata["encoding"] == b"json/plain"
    ]
    assert "model quality, step 1" in summaries
    assert "pay deadline, then reject" in summaries
    assert "run pay" in summaries
    assert run["links"]["temporal"].endswith(f"/workflows/{ada.tenant_id}:support:{run['message_id']}")
