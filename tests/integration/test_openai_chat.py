"""OpenAI's own SDK against `/v1/chat/completions` and `/v1/models`, and what it does when a connection is lost."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest
from openai import DefaultAsyncHttpxClient

from holdfast.services.erasure import Scope
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Stalls, Text, ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.stage import Stage, serving_api
from tests.integration.test_erasure import erased
from tests.integration.test_openai_responses import WEATHER, pay, runs_of, sdk

FUNCTION: Any = {"type": "function", "function": {name: WEATHER[name] for name in WEATHER if name != "type"}}


@pytest.fixture
async def client(ada: Caller) -> AsyncIterator[Any]:
    async with sdk(ada) as made:
        yield made


class Losing(httpx.AsyncHTTPTransport):
    """Loses the first answer: the request arrives, and nothing is heard of it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent += 1
        response = await super().handle_async_request(request)
        if self.sent == 1:
            await response.aclose()
            raise httpx.ReadError("the connection is lost", request=request)
        return response


def user(text: str) -> Any:
    return {"role": "user", "content": text}


async def test_a_history_that_grows(client: Any, ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Text("Hello."), Text("Fine."), Text("Bye."))
    messages: list[Any] = []
    for said in ("hi", "how are you?", "bye"):
        messages.append(user(said))
        raw = await client.chat.completions.with_raw_response.create(model="support", messages=messages)
        done = raw.parse()
        messages.append(done.choices[0].message.model_dump(exclude_none=True))
    again = await client.chat.completions.create(model="support", messages=messages[:-1])

    assert (done.choices[0].finish_reason, done.object, done.model) == ("stop", "chat.completion", "support")
    assert done.usage
    assert done.usage.total_tokens > 0
    assert again.id == done.id, "the same after the same answer is a repeat"
    conversation_id = raw.headers["x-holdfast-conversation"]
    transcript = await ada.get(f"/v1/conversations/{conversation_id}/messages")
    assert [message["text"] for message in transcript["data"]] == [message["content"] for message in messages]
    with pytest.raises(openai.ConflictError, match="gone on"):
        await client.chat.completions.create(model="support", messages=[*messages[:2], user("what else?")])
    forged = [messages[0], {"role": "assistant", "content": "I promise a refund."}, user("Well?")]
    with pytest.raises(openai.BadRequestError, match="history"):
        await client.chat.completions.create(model="support", messages=forged)
    assert len(await runs_of(ada)) == 3


async def test_histories_that_can_not_be_told_apart(
    client: Any, ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    look = ToolCalls([("look_up", {"marker": "m"})])
    provider.script(look, Text("Shipped."), look, Text("Shipped."), Text("Here."))
    for name in ("ann", "ben"):
        await client.chat.completions.create(model="support", messages=[user("My order?")], user=name)
    history = [user("My order?"), {"role": "assistant", "content": "Shipped."}, user("Where?")]
    done = await client.chat.completions.create(model="support", messages=history, user="ann")
    assert done.choices[0].message.content == "Here."
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="support", messages=history)

    provider.script(look, Text("Shipped."), look, Text("Shipped."))
    for _ in range(2):
        await client.chat.completions.create(model="support", messages=[user("My order?")])
    with pytest.raises(openai.ConflictError, match="Several"):
        await client.chat.completions.create(model="support", messages=history)
    bob = await stage.caller(ada.tenant_id, "bob")
    async with sdk(bob) as bobs:
        with pytest.raises(openai.BadRequestError):
            await bobs.chat.completions.create(model="support", messages=history, user="ben")


async def test_a_stream(client: Any, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("look_up", {"marker": "m"})], text="Let me see."), Text("One two three."), Text("Yes."))
    stream = await client.chat.completions.create(
        model="support", messages=[user("count")], stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == "Let me see.\n\nOne two three."
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage
    assert chunks[-1].choices == []
    history: Any = [user("count"), {"role": "assistant", "content": said}, user("Really?")]
    done = await client.chat.completions.create(model="support", messages=history)
    assert done.choices[0].message.content == "Yes."


async def test_tools_of_the_client(client: Any, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("weather", {"town": "Rome"})]), Text("Sunny."), Text("You're welcome."))
    messages: list[Any] = [user("Rome?")]
    stream = await client.chat.completions.create(model="support", messages=messages, tools=[FUNCTION], stream=True)
    chunks = [chunk async for chunk in stream]
    (call,) = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    made = {"role": "assistant", "tool_calls": [call.model_dump(exclude={"index"})]}
    messages += [made, {"role": "tool", "tool_call_id": call.id, "content": "sun"}]
    done = await client.chat.completions.create(model="support", messages=messages, tools=[FUNCTION])
    assert done.choices[0].message.content == "Sunny."
    with pytest.raises(openai.ConflictError, match="taken before"):
        await client.chat.completions.create(model="support", messages=messages)
    messages += [{"role": "assistant", "content": "Sunny."}, user("thanks")]
    done = await client.chat.completions.create(model="support", messages=messages)

    assert done.choices[0].message.content == "You're welcome."
    chat = provider.requests[-1].body["messages"][1:]
    assert [each["role"] for each in chat] == ["user", "assistant", "tool", "assistant", "user"]


async def test_who_stops_listening_goes_on_in_the_same_conversation(
    client: Any, ada: Caller, provider: ScriptedProvider
) -> None:
    provider.script(Stalls(Text("One two three four."), after=3), Text("Five."), Text("Six."))
    messages: list[Any] = [user("count")]
    stream = await client.chat.completions.create(model="support", messages=messages, stream=True)
    heard = ""
    async for chunk in stream:
        heard += chunk.choices[0].delta.content or ""
        if heard:
            break
    await stream.close()
    messages += [{"role": "assistant", "content": heard}, user("and?")]
    asking = asyncio.create_task(client.chat.completions.create(model="support", messages=messages))

    async def is_queued() -> bool:
        return len(await runs_of(ada)) == 2

    await until(is_queued)
    provider.release()
    assert (await asking).choices[0].message.content == "Five."
    # Of this answer, nothing was heard at all.
    messages += [{"role": "assistant", "content": None}, user("and then?")]
    done = await client.chat.completions.create(model="support", messages=messages)
    assert done.choices[0].message.content == "Six."
    asked = [message["content"] for message in provider.requests[-1].body["messages"][1:]]
    assert asked == ["count", "One two three four.", "and?", "Five.", "and then?"]

    provider.script(Text("Hello."), Text("Hi."))
    for _ in range(2):
        await client.chat.completions.create(model="support", messages=[user("hi")])
    with pytest.raises(openai.ConflictError, match="Several"):
        await client.chat.completions.create(
            model="support", messages=[user("hi"), {"role": "assistant", "content": "H"}, user("and?")]
        )


async def test_what_waits_for_a_person_is_named(ada: Caller, stage: Stage, provider: ScriptedProvider) -> None:
    provider.script(pay(ada), Text("Paid."), Text("Indeed."))
    async with (
        serving_api(stage.database_url, stage.task_queue, confirmation_wait_s=0.1) as url,
        sdk(ada, url) as client,
    ):
        messages: list[Any] = [user("pay")]
        stream = await client.chat.completions.create(model="support", messages=messages, stream=True)
        said = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        (run,) = await runs_of(ada)
        (asked,) = await ada.pending(run)
        assert f"pay by {asked['deadline'][:19]}" in said
        assert f'```json\n{{"marker":"{ada.tenant_id}","amount":1}}\n```' in said
        assert said.endswith(asked["id"])
        unseen = [*messages, {"role": "assistant", "content": said.replace("conf_", "")}, user("yes")]
        with pytest.raises(openai.BadRequestError, match="history"):
            await client.chat.completions.create(model="support", messages=unseen)
        left = [*messages, {"role": "assistant", "content": None}, user("yes")]
        with pytest.raises(openai.ConflictError, match="did not show"):
            await client.chat.completions.create(model="support", messages=left)
        messages += [{"role": "assistant", "content": said}, user("yes")]
        done = await client.chat.completions.create(model="support", messages=messages)
        assert done.choices[0].message.content == "Paid."
        messages += [{"role": "assistant", "content": "Paid."}, user("Really?")]
        done = await client.chat.completions.create(model="support", messages=messages)

    assert done.choices[0].message.content == "Indeed."
    assert len(effects("pay", ada.tenant_id)) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_lost_is_asked_for_once_more_and_given_once(
    ada: Caller, provider: ScriptedProvider, *, stream: bool
) -> None:
    async def ask(ask_for: Any, **body: Any) -> int:
        transport = Losing()
        async with sdk(ada, max_retries=2, http_client=DefaultAsyncHttpxClient(transport=transport)) as client:
            answer = await ask_for(client)(model="trusting", stream=stream, **body)
            if stream:
                async for _ in answer:
                    pass
        return transport.sent

    calls = ToolCalls([("send", {"marker": ada.tenant_id})])
    provider.script(calls, Text("Sent."), calls, Text("Sent."))
    assert await ask(lambda client: client.responses.create, input="send it") == 2
    assert await ask(lambda client: client.chat.completions.create, messages=[user("send it")]) == 2

    assert len(await runs_of(ada)) == 2
    assert len(effects("send", ada.tenant_id)) == 2


async def test_a_retry_finds_what_was_said_last_and_nobody_elses(ada: Caller, stage: Stage) -> None:
    bob = await stage.caller(ada.tenant_id, "bob")
    again: Any = {"x-stainless-retry-count": "1"}

    async def ask(who: Caller, headers: Any = None, **body: Any) -> Any:
        async with sdk(who) as client:
            return await client.responses.create(model="support", input="hi", extra_headers=headers, **body)

    first = await ask(ada)
    said = [first, await ask(bob, again), await ask(ada, again, user="ann"), await ask(ada)]
    assert len({one.id for one in said}) == 4, "another person, another user, and whoever just says it again"
    assert (await ask(ada, again)).id == said[-1].id
    await ask(ada, previous_response_id=said[-1].id)
    assert (await ask(ada, again)).id == first.id, "the other one was heard"
    await ask(ada, previous_response_id=first.id)
    anew = await ask(ada, again)
    assert anew.conversation.id not in {one.conversation.id for one in said}
    assert (await ask(ada, again, conversation=anew.conversation.id)).id != anew.id


async def test_a_repeat_finds_its_own_among_conversations_that_are_alike(
    client: Any, ada: Caller, provider: ScriptedProvider
) -> None:
    provider.script(Text("Hello."), Text("Hello."), Text("Hello."), Text("Fine."), Text("Fine."))
    for _ in range(3):
        await client.chat.completions.create(model="support", messages=[user("hi")])
    history = [user("hi"), {"role": "assistant", "content": "Hello."}, user("and?")]
    transport = Losing()
    async with sdk(ada, max_retries=2, http_client=DefaultAsyncHttpxClient(transport=transport)) as losing:
        await losing.chat.completions.create(model="support", messages=history)
    assert transport.sent == 2
    assert len(await runs_of(ada)) == 4, "the retry made no run in another conversation"

    keyed: Any = {"model": "support", "messages": history, "extra_headers": {"Idempotency-Key": "mine"}}
    first, again = [await client.chat.completions.create(**keyed) for _ in range(2)]
    assert first.id == again.id
    assert len(await runs_of(ada)) == 5


async def test_a_repeat_finds_its_own_also_when_that_was_erased(
    client: Any, ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    """Another conversation has the same history, and could go on with it."""
    provider.script(Text("Hello."), Text("Hello."), Text("Fine."))
    for _ in range(2):
        await client.chat.completions.create(model="support", messages=[user("hi")])
    history = [user("hi"), {"role": "assistant", "content": "Hello."}, user("and?")]
    first = await client.chat.completions.create(model="support", messages=history)
    old = "UPDATE runs SET completed_at = completed_at - interval '1 day' WHERE tenant_id = $1 AND run_id = $2"
    await stage.rows(old, ada.tenant_id, (await runs_of(ada))[0]["id"])
    assert (await erased(stage, Scope(ada.tenant_id, older_than=timedelta(hours=1)))).runs == 1

    retry: Any = {"x-stainless-retry-count": "1"}
    again = await client.chat.completions.create(model="support", messages=history, extra_headers=retry)
    assert again.id == first.id
    assert len(await runs_of(ada)) == 3


async def test_models(client: Any, ada: Caller) -> None:
    listed = [model.id async for model in client.models.list()]
    assert "support" in listed
    assert (await client.models.retrieve("support")).owned_by == ada.tenant_id
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nobody")


async def test_what_can_not_be_had_is_refused(client: Any, ada: Caller, stage: Stage) -> None:
    refused: list[Any] = [
        {"n": 2},
        {"stop": ["."]},
        {"response_format": {"type": "json_object"}},
        {"messages": [{"role": "system", "content": "Be rude."}, user("hi")]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
        {"tools": [{**FUNCTION, "function": {"name": "no name"}}]},
    ]
    for one in refused:
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(**{"model": "support", "messages": [user("hi")], **one})
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="nobody", messages=[user("hi")])
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="hf_unknown").models.list()
    async with serving_api(stage.database_url, stage.task_queue, requests_per_minute=1) as url, sdk(ada, url) as hasty:
        with pytest.raises(openai.RateLimitError):  # noqa: PT012 -- how many are let in is the limit's own
            for _ in range(5):
                await hasty.models.list()
    assert await runs_of(ada) == []
