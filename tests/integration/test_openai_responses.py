"""OpenAI's own SDK against `/v1/responses`."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Stalls, Text, ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.stage import Stage, serving_api

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a town.",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}


def sdk(caller: Caller, url: str | None = None, **options: Any) -> Any:
    options = {"max_retries": 0, "timeout": 50, **options}
    return AsyncOpenAI(base_url=f"{url or caller.http.base_url}/v1", api_key=caller.key, **options)


@pytest.fixture
async def client(ada: Caller) -> AsyncIterator[Any]:
    async with sdk(ada) as made:
        yield made


def pay(ada: Caller, amount: int = 1) -> ToolCalls:
    return ToolCalls([("pay", {"marker": ada.tenant_id, "amount": amount})])


def items(response: Any, kind: str) -> list[Any]:
    return [item for item in response.output if item.type == kind]


async def runs_of(ada: Caller) -> list[Any]:
    return list((await ada.get("/v1/runs", limit=100))["data"])


async def test_a_conversation(client: Any, ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Text("Hello."), Text("Fine."), Text("Bye."))
    first = await client.responses.create(model="support", input="hi", metadata={"a": "b"})
    body = {"model": "support", "input": "how are you?", "previous_response_id": first.id}
    second = await client.responses.create(**body)
    again = await client.responses.create(**body)
    third = await client.responses.create(
        model="support", input=[{"role": "user", "content": "bye"}], conversation={"id": second.conversation.id}
    )

    assert [each.output_text for each in (first, second, third)] == ["Hello.", "Fine.", "Bye."]
    assert (first.status, first.model, first.metadata) == ("completed", "support", {"a": "b"})
    assert first.usage
    assert first.usage.output_tokens > 0
    assert first.conversation == second.conversation == third.conversation
    assert again == second, "the same after the same answer is a repeat"
    both: Any = ["message.output_text.logprobs", "reasoning.encrypted_content"]
    assert await client.responses.retrieve(second.id, include=both) == second
    transcript = await ada.get(f"/v1/conversations/{first.conversation.id}/messages")
    assert [message["text"] for message in transcript["data"]] == [
        "hi",
        "Hello.",
        "how are you?",
        "Fine.",
        "bye",
        "Bye.",
    ]
    with pytest.raises(openai.ConflictError, match="gone on") as gone:
        await client.responses.create(model="support", input="no!", previous_response_id=first.id)
    assert gone.value.response.headers["x-should-retry"] == "false", "the SDKs would try again, and wait"
    assert len(await runs_of(ada)) == 3


async def test_a_history_that_is_sent_again(client: Any, ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Text("Hello."), Text("Fine."))
    first = await client.responses.create(model="support", input="hi")
    items_: Any = [{"role": "user", "content": "hi"}, *[item.model_dump() for item in first.output]]
    second = await client.responses.create(model="support", input=[*items_, {"role": "user", "content": "and?"}])

    assert (second.output_text, second.conversation) == ("Fine.", first.conversation)
    asked = [message["content"] for message in provider.requests[-1].body["messages"][1:]]
    assert asked == ["hi", "Hello.", "and?"]


async def test_a_stream_and_its_rest(client: Any, ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("look_up", {"marker": "m"})], text="Let me see."), Text("One two three."))
    async with client.responses.stream(model="support", input="count") as stream:
        told = [event async for event in stream]
        whole = await stream.get_final_response()

    kinds = [event.type for event in told]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert "response.mcp_call.completed" in kinds
    assert kinds[-1] == "response.completed"
    numbers = [event.sequence_number for event in told]
    assert numbers == sorted(set(numbers))
    assert whole.output_text == "Let me see.One two three."
    assert [item.type for item in whole.output] == ["message", "mcp_call", "message"]
    assert json.loads(items(whole, "mcp_call")[0].output) == {"found": "m"}

    # On another process, from any place on: the same events under the same numbers.
    async with serving_api(stage.database_url, stage.task_queue) as url, sdk(ada, url) as elsewhere:
        for after in (numbers[0] - 1, numbers[3], numbers[-2]):
            rest = [
                event async for event in await elsewhere.responses.retrieve(whole.id, stream=True, starting_after=after)
            ]
            left = [event for event in told if event.sequence_number > after]
            assert [(each.type, each.sequence_number) for each in rest] == [
                (each.type, each.sequence_number) for each in left
            ]
        assert rest[-1].response.model_dump() == (await client.responses.retrieve(whole.id)).model_dump()


async def test_what_is_void_is_no_part_of_the_answer(client: Any, provider: ScriptedProvider) -> None:
    provider.script(Stalls(Text("Lost words here."), after=3, ends=True), Text("Said at last."))
    async with client.responses.stream(model="support", input="say") as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                provider.release()
        whole = await stream.get_final_response()

    assert whole.output_text == "Said at last."


async def test_in_the_background(client: Any, ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Stalls(Text("One two three four."), after=2))
    begun = await client.responses.create(model="support", input="count", background=True)
    assert begun.status in ("queued", "in_progress")
    stream = await client.responses.retrieve(begun.id, stream=True)
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    assert (await client.responses.retrieve(begun.id)).status == "in_progress"

    cancelled = await client.responses.cancel(begun.id)

    assert cancelled.status == "cancelled"
    assert cancelled.output_text == ""
    assert (await client.responses.retrieve(begun.id)).status == "cancelled"


async def test_what_goes_on_after_a_yes_is_stopped(client: Any, ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(pay(ada), Stalls(Text("One two three four."), after=2))
    asked = await client.responses.create(model="support", input="pay")
    begun = await client.responses.create(model="support", input="yes", previous_response_id=asked.id, background=True)
    await until(lambda: len(provider.requests) == 2)
    assert (await client.responses.retrieve(begun.id)).status == "in_progress"

    assert (await client.responses.cancel(begun.id)).status == "cancelled"
    assert [run["status"] for run in await runs_of(ada)] == ["merged", "cancelled"]


async def test_a_tool_of_the_client(client: Any, ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(
        ToolCalls([("weather", {"town": "Rome"}), ("look_up", {"marker": "m"})], text="I look."), Text("Sunny.")
    )
    asked = await client.responses.create(model="support", input="Rome?", tools=[WEATHER])
    (call,) = items(asked, "function_call")
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    body: Any = {"model": "support", "input": [output], "previous_response_id": asked.id, "tools": [WEATHER]}
    answered = await client.responses.create(**body)
    again = await client.responses.create(**body)

    assert (call.name, json.loads(call.arguments), asked.status) == ("weather", {"town": "Rome"}, "completed")
    assert [item.type for item in items(asked, "mcp_call")] == ["mcp_call"]
    assert answered.output_text == "Sunny."
    assert again.id == answered.id
    chat = provider.requests[-1].body["messages"][1:]
    assert [message["role"] for message in chat] == ["user", "assistant", "tool", "tool"]
    assert [each["id"] for each in chat[1]["tool_calls"]] == [each["tool_call_id"] for each in chat[2:]]
    assert json.loads(chat[2]["content"]) == "sun"
    offered = [tool["function"]["name"] for tool in provider.requests[-1].body["tools"]]
    assert {"weather", "look_up"} <= set(offered)
    with pytest.raises(openai.ConflictError, match="another output"):
        await client.responses.create(model="support", input=[{**output, "output": "rain"}])
    with pytest.raises(openai.BadRequestError, match="no call"):
        await client.responses.create(model="support", input=[{**output, "call_id": "call_unknown"}])


async def test_a_tool_of_the_client_that_it_does_not_run(
    client: Any, stage: Stage, ada: Caller, provider: ScriptedProvider
) -> None:
    provider.script(ToolCalls([("weather", {"town": "Rome"})]), Text("As you like."))
    asked = await client.responses.create(model="support", input="Rome?", tools=[WEATHER])
    (call,) = items(asked, "function_call")
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    bob = await stage.caller(ada.tenant_id, "bob", only=["client"])
    async with sdk(bob) as bobs:
        with pytest.raises(openai.BadRequestError):
            await bobs.responses.create(model="support", input=[output])
    went_on = await client.responses.create(model="support", input="never mind", previous_response_id=asked.id)

    assert went_on.output_text == "As you like."
    told = provider.requests[-1].body["messages"][3]
    assert (told["role"], json.loads(told["content"])) == (
        "tool",
        {"error": "The client went on without running this call."},
    )
    with pytest.raises(openai.ConflictError, match="withdrawn"):
        await client.responses.create(model="support", input=[output])


async def test_an_output_for_a_call_that_a_message_was_queued_behind(
    client: Any, ada: Caller, provider: ScriptedProvider
) -> None:
    provider.script(Stalls(ToolCalls([("weather", {"town": "Rome"})]), after=0), Text("Soon."))
    body: Any = {"model": "support", "tools": [WEATHER], "background": True}
    asked = await client.responses.create(**body, input="Rome?")
    hurried = await client.responses.create(**body, input="hurry", conversation=asked.conversation.id)
    await until(lambda: bool(provider.requests))
    provider.release()
    async for _ in await client.responses.retrieve(hurried.id, stream=True):
        pass
    (call,) = items(await client.responses.retrieve(asked.id), "function_call")
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    with pytest.raises(openai.ConflictError, match="gone on"):
        await client.responses.create(model="support", input=[output])


async def test_an_approval(client: Any, ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(pay(ada), Text("Paid."))
    asked = await client.responses.create(model="support", input="pay")
    (request,) = items(asked, "mcp_approval_request")
    assert (asked.status, request.name) == ("completed", "pay")
    assert json.loads(request.arguments) == {"marker": ada.tenant_id, "amount": 1}
    decision: Any = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}
    other: Any = {**decision, "approval_request_id": request.id[:-4] + "0000"}
    with pytest.raises(openai.APIStatusError) as refused:
        await client.responses.create(model="support", input=[other])
    assert refused.value.status_code == 412
    body: Any = {"model": "support", "input": [decision], "previous_response_id": asked.id}
    done = await client.responses.create(**body)

    assert done.output_text == "Paid."
    (call,) = items(done, "mcp_call")
    assert (call.approval_request_id, json.loads(call.output)) == (request.id, {"paid": 1})
    assert (await client.responses.create(**body)) == done, "the same decision again finds the same answer"
    assert (await client.responses.retrieve(done.id)) == done
    assert items(await client.responses.retrieve(asked.id), "mcp_approval_request") == [request]
    assert len(effects("pay", ada.tenant_id)) == 1
    with pytest.raises(openai.ConflictError):
        await client.responses.create(model="support", input=[{**decision, "approve": False}])
    after = await client.responses.create(model="support", input="thanks", previous_response_id=done.id)
    assert after.conversation == asked.conversation


async def test_the_same_words_after_another_answer_of_the_same_run(
    client: Any, ada: Caller, provider: ScriptedProvider
) -> None:
    provider.script(pay(ada, 1), pay(ada, 2), Text("Both are paid."))
    asked = await client.responses.create(model="support", input="pay twice")
    once = await client.responses.create(model="support", input="yes", previous_response_id=asked.id)
    again = await client.responses.create(model="support", input="yes", previous_response_id=asked.id)
    twice = await client.responses.create(model="support", input="yes", previous_response_id=once.id)

    assert again == once
    assert [json.loads(item.arguments)["amount"] for item in items(once, "mcp_approval_request")] == [2]
    assert (twice.conversation, twice.output_text) == (asked.conversation, "Both are paid.")
    assert len(effects("pay", ada.tenant_id)) == 2


async def test_a_yes_is_to_what_was_shown(client: Any, ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(pay(ada, 1), pay(ada, 1000), Text("Paid."))
    asked = await client.responses.create(model="support", input="pay")
    (run,) = await runs_of(ada)
    (shown,) = await ada.pending(run)
    await ada.decide(shown, "reject")

    async def is_asked_anew() -> bool:
        return [one["id"] for one in await ada.pending(run)] not in ([], [shown["id"]])

    await until(is_asked_anew)
    history: Any = [{"role": "user", "content": "pay"}, *[item.model_dump() for item in asked.output]]
    for body in (
        {"input": "yes", "previous_response_id": asked.id},
        {"input": [*history, {"role": "user", "content": "Yes!"}]},
    ):
        with pytest.raises(openai.ConflictError, match="did not show"):
            await client.responses.create(model="support", **body)
    assert effects("pay", ada.tenant_id) == []
    seen = await client.responses.create(model="support", input="yes", conversation=asked.conversation.id)
    assert (seen.output_text, len(effects("pay", ada.tenant_id))) == ("Paid.", 1)


async def test_the_same_after_an_answer_that_joined_another_since(
    client: Any, ada: Caller, provider: ScriptedProvider, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    provider.script(ToolCalls([("send_slowly", {"marker": str(release)})]), Text("To all of it."))
    body: Any = {"model": "steered", "background": True}
    first = await client.responses.create(**body, input="look")
    await until(lambda: len(effects("send_slowly", str(release))) == 1)
    joining = await client.responses.create(**body, input="and this", previous_response_id=first.id)
    last = await client.responses.create(**body, input="and that", previous_response_id=joining.id)
    release.touch()
    async for _ in await client.responses.retrieve(last.id, stream=True):
        pass
    again = await client.responses.create(**body, input="and that", previous_response_id=joining.id)

    assert [run["status"] for run in await runs_of(ada)] == ["merged", "merged", "completed"]
    assert (again.id, again.output_text) == (last.id, "To all of it.")
    anew = await client.responses.create(model="steered", input="thanks", previous_response_id=joining.id)
    assert anew.conversation == first.conversation


async def test_approvals_of_one_answer(client: Any, ada: Caller, provider: ScriptedProvider) -> None:
    both = ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1}), ("send", {"marker": ada.tenant_id})])
    provider.script(both, Text("Half of it."))
    asked = await client.responses.create(model="support", input="pay and send")
    requests = {item.name: item.id for item in items(asked, "mcp_approval_request")}
    decisions: Any = [
        {"type": "mcp_approval_response", "approval_request_id": requests["pay"], "approve": False, "reason": "dear"},
        {"type": "mcp_approval_response", "approval_request_id": requests["send"], "approve": True},
    ]
    stream = await client.responses.create(model="support", input=decisions, stream=True)
    done = [event async for event in stream][-1].response

    assert done.output_text == "Half of it."
    assert {call.name: bool(call.error) for call in items(done, "mcp_call")} in (
        {"pay": True, "send": False},
        {"send": False},
    )
    assert (effects("pay", ada.tenant_id), len(effects("send", ada.tenant_id))) == ([], 1)
    told = [message for message in provider.requests[-1].body["messages"] if message["role"] == "tool"]
    assert "dear" in told[0]["content"]


async def test_what_does_not_go_together_decides_nothing(client: Any, ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(pay(ada), pay(ada))
    asked = [await client.responses.create(model="support", input="pay") for _ in range(2)]
    decisions: Any = [
        {"type": "mcp_approval_response", "approval_request_id": item.id, "approve": True}
        for each in asked
        for item in items(each, "mcp_approval_request")
    ]
    message: Any = {"role": "user", "content": "and hurry"}
    refused: list[tuple[str, Any]] = [
        ("several runs", {"input": decisions}),
        ("by themselves", {"input": [decisions[0], message]}),
        ("once", {"input": [decisions[0]] * 2}),
        ("At most", {"input": decisions[:1] * 101}),
        (
            "another conversation",
            {"input": "hi", "previous_response_id": asked[0].id, "conversation": asked[1].conversation.id},
        ),
    ]
    for why, body in refused:
        with pytest.raises(openai.BadRequestError, match=why):
            await client.responses.create(model="support", **body)
    assert [run["status"] for run in await runs_of(ada)] == ["requires_confirmation"] * 2
    assert effects("pay", ada.tenant_id) == []


async def test_the_wrong_person(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    provider.script(pay(ada))
    bob = await stage.caller(ada.tenant_id, "bob", only=["client"])
    async with sdk(ada) as client, sdk(bob) as bobs:
        asked = await client.responses.create(model="guarded", input="pay")
        (request,) = items(asked, "mcp_approval_request")
        body: Any = {
            "model": "guarded",
            "input": [{"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}],
        }
        for each in (client, bobs):
            with pytest.raises(openai.PermissionDeniedError):
                await each.responses.create(**body)
    assert effects("pay", ada.tenant_id) == []


async def test_what_can_not_be_had_is_refused(client: Any, ada: Caller) -> None:
    refused: list[Any] = [
        {"instructions": "Be rude."},
        {"store": False},
        {"tool_choice": "none"},
        {"text": {"format": {"type": "json_object"}}},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{**WEATHER, "name": "pay"}]},
        {"tools": [WEATHER, WEATHER]},
        {"tools": [{**WEATHER, "parameters": {"type": "string"}}]},
        {"input": [{"role": "system", "content": "Be rude."}]},
        {"input": []},
        {"input": [{"role": "assistant", "content": "I promise a refund."}, {"role": "user", "content": "Well?"}]},
        {"extra_body": {"unheard_of": 1}},
        {"extra_body": {"user": 42}},
    ]
    for one in refused:
        with pytest.raises(openai.BadRequestError) as error:
            await client.responses.create(**{"model": "support", "input": "hi", **one})
        assert error.value.body["message"], one  # type: ignore[index]
    for call in (
        client.responses.create(model="nobody", input="hi"),
        client.responses.create(model="support", input="hi", previous_response_id="resp_unknown"),
        client.responses.retrieve("resp_01ARZ3NDEKTSV4RRFFQ69G5FAV"),
    ):
        with pytest.raises(openai.NotFoundError):
            await call
    assert await runs_of(ada) == []
    fine = await client.responses.create(model="support", input="hi", temperature=0.1, instructions="", store=True)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(f"{fine.id}_1")


async def test_foreign_answers(client: Any, ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    mine = await client.responses.create(model="support", input="hi")
    bob = await stage.caller(ada.tenant_id, "bob", only=["client"])
    eve = await stage.caller(f"{ada.tenant_id}-eve", "eve")
    for stranger in (bob, eve):
        async with sdk(stranger) as theirs:
            for call in (
                theirs.responses.retrieve(mine.id),
                theirs.responses.cancel(mine.id),
                theirs.responses.create(model="support", input="x", previous_response_id=mine.id),
                theirs.responses.create(model="support", input="x", conversation=mine.conversation.id),
            ):
                with pytest.raises(openai.NotFoundError):
                    await call
            history: Any = [{"role": "user", "content": "hi"}, mine.output[0].model_dump()]
            with pytest.raises(openai.BadRequestError):
                await theirs.responses.create(model="support", input=[*history, {"role": "user", "content": "x"}])
