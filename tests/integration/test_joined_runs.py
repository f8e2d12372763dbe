"""The answer to a message that joins another run is the same through every door: that run, from then on, as far as the
one who wrote it may read it; or its reply alone.

Each door is asked for the answer to a message in a conversation whose run is in the middle of a tool.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller, Json
from tests.harness.conditions import until
from tests.harness.reading import told_in
from tests.harness.stage import Stage

BEFORE, AFTER, REPLY = "Let me look.", "And once more.", "To all of you."


async def plainly(caller: Caller, conversation: str, text: str) -> Any:
    return (await caller.send(text, agent="steered", conversation_id=conversation, wait=30)).json()


async def by_response(caller: Caller, conversation: str, text: str) -> Any:
    body = {"model": "steered", "input": text, "conversation": conversation}
    return (await caller.http.post("/v1/responses", json=body)).json()


async def by_response_stream(caller: Caller, conversation: str, text: str) -> Any:
    body = {"model": "steered", "input": text, "conversation": conversation, "stream": True}
    return told_in(await caller.http.post("/v1/responses", json=body))


async def by_completion(caller: Caller, conversation: str, text: str) -> Any:
    body = {"model": "steered", "messages": [{"role": "user", "content": text}]}
    headers = {"x-holdfast-conversation": conversation}
    return (await caller.http.post("/v1/chat/completions", json=body, headers=headers)).json()


async def by_agui(caller: Caller, conversation: str, text: str) -> Any:
    messages = [{"id": text, "role": "user", "content": text}]
    body = {"threadId": conversation, "runId": text, "messages": messages}
    return told_in(await caller.http.post("/agui/steered", json=body))


async def by_ui_messages(caller: Caller, conversation: str, text: str) -> Any:
    messages = [{"id": text, "role": "user", "parts": [{"type": "text", "text": text}]}]
    body = {"id": conversation, "agent": "steered", "messages": messages}
    return told_in(await caller.http.post("/api/chat", json=body))


DOORS: dict[str, Callable[[Caller, str, str], Coroutine[Any, Any, Any]]] = {
    "POST /v1/messages?wait=": plainly,
    "POST /v1/responses": by_response,
    "POST /v1/responses, streaming": by_response_stream,
    "POST /v1/chat/completions": by_completion,
    "AG-UI": by_agui,
    "the AI SDK": by_ui_messages,
}


@pytest.fixture
async def carl(ada: Caller, stage: Stage) -> Caller:
    """The one whose conversation it is; into which Ada, who sees all of the tenant, writes too."""
    return await stage.caller(ada.tenant_id, person="carl", only=["client"])


async def answers(
    ada: Caller, carl: Caller, provider: ScriptedProvider, release: Path
) -> tuple[Json, dict[str, dict[str, Any]]]:
    """A run of Ada's which everybody joins through every door at once; and what the doors answer, by person."""
    conversation = (await carl.ask("hello", agent="steered"))["conversation_id"]
    provider.script(
        ToolCalls([("send_slowly", {"marker": str(release)})], text=BEFORE),
        ToolCalls([("look_up", {"marker": "after"})], text=AFTER),
        Text(REPLY),
    )
    run_id = await ada.start("look", agent="steered", conversation_id=conversation)
    await until(lambda: len(effects("send_slowly", str(release))) == 1)
    people = (ada, carl)
    asked = [
        asyncio.create_task(ask(caller, conversation, f"{caller.person} by {door}"))
        for caller in people
        for door, ask in DOORS.items()
    ]

    async def have_arrived() -> bool:
        return len((await ada.get("/v1/runs", limit=100, status="queued"))["data"]) == len(asked)

    await until(have_arrived)
    release.touch()
    found = await asyncio.gather(*asked)
    by_person = {
        caller.person: dict(zip(DOORS, found[n * len(DOORS) :], strict=False)) for n, caller in enumerate(people)
    }
    return await ada.ended(run_id), by_person


async def test_every_door_answers_a_message_that_joined_by_the_same_rule(
    ada: Caller, carl: Caller, provider: ScriptedProvider, tmp_path: Path
) -> None:
    run, by_person = await answers(ada, carl, provider, tmp_path / "release")

    assert (run["status"], run["reply"]) == ("completed", REPLY)
    plain = {person: found.pop("POST /v1/messages?wait=") for person, found in by_person.items()}
    for door, answer in by_person["ada"].items():
        seen = json.dumps(answer)
        assert [text in seen for text in (AFTER, REPLY)] == [True, True], door
        assert "look_up" in seen or door == "POST /v1/chat/completions", "which has no place for a call of ours"
        assert [text in seen for text in (BEFORE, "send_slowly")] == [False, False], f"{door}: that was said before"
    for door, answer in by_person["carl"].items():
        seen = json.dumps(answer)
        assert REPLY in seen, door
        hidden = (BEFORE, AFTER, "send_slowly", "look_up", run["id"].removeprefix("run_"))
        assert [text in seen for text in hidden] == [False] * 5, f"{door}: that is Ada's"
    assert plain["ada"] == run
    own = plain["carl"]
    assert (own["status"], own["reply"], own["merged_into"]) == ("completed", REPLY, run["id"])
    assert (own["tool_calls"], own["steps"], own["usage"]["prompt_tokens"]) == ([], [], 0)
    assert (await carl.get(f"/v1/runs/{own['id']}"))["status"] == "merged", "the record shows it as it is"
    assert (await carl.http.get(f"/v1/runs/{run['id']}")).status_code == 404
