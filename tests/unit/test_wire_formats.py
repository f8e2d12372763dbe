"""The scripted provider in each wire format, as LiteLLM reads it; and what it sees of the clients that leave.

What LiteLLM makes of a format is stated here as it is, also where it is odd: whoever relies on it finds it tried.
"""

import asyncio
import base64
import json
import os
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.testing.embeddings_wire import DIMENSIONS, vector
from holdfast.testing.provider import RecordedRequest, ScriptedProvider
from holdfast.testing.replies import (
    Cut,
    Dribble,
    EmptyChoices,
    EndsEarly,
    Garbage,
    Hang,
    HttpError,
    Reply,
    Slow,
    Stalls,
    Text,
    ToolCalls,
)
from holdfast.testing.wires import ANTHROPIC, OLLAMA, OPENAI, QUESTION, Format, Wire, stream_events, whole_stream
from tests.harness.conditions import until
from tests.unit.builders import json_objects, texts

CHATS: list[Wire] = ["openai", "anthropic", "ollama"]
PATHS = {each.wire: each.path for each in (OPENAI, ANTHROPIC, OLLAMA)}
MODELS = {"openai": "openai/x", "anthropic": "anthropic/claude-sonnet-4-5", "ollama": "ollama_chat/qwen3:8b"}

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
WORDS = Text("four words it says")
CALLS = ToolCalls([("look_up", {"a": 1, "b": "x y"}), ("look_up", {"a": 2})], "wait")
ONE_CALL = ToolCalls([("look_up", {"a": 1, "b": "x y"})])

#: Long enough that a test which waits for it fails by its own timeout.
FOREVER = 600.0


@pytest.fixture(scope="module")
def litellm() -> Any:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm  # noqa: PLC0415  seconds: not where tests are only collected

    litellm.suppress_debug_info = True
    return litellm


@pytest.fixture(scope="module")
def own_provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
def provider(own_provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> ScriptedProvider:
    # Where LiteLLM asks what Ollama's models can do, also when it is told another `api_base`.
    monkeypatch.setenv("OLLAMA_API_BASE", own_provider.root)
    own_provider.reset()
    return own_provider


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=None) as client:
        yield client


def base(provider: ScriptedProvider, wire: Wire) -> str:
    return provider.url if wire == "openai" else provider.root


async def ask(litellm: Any, provider: ScriptedProvider, wire: Wire, reply: Reply, **options: Any) -> Any:
    """What LiteLLM makes of the reply."""
    provider.script(reply)
    asked = {"messages": HELLO, "tools": [TOOL], "max_retries": 0, "timeout": 30, **options}
    return await litellm.acompletion(model=MODELS[wire], api_base=base(provider, wire), api_key="key", **asked)


async def chunks(litellm: Any, provider: ScriptedProvider, wire: Wire, reply: Reply, **options: Any) -> list[Any]:
    """The chunks that LiteLLM makes of the reply's stream."""
    wanted = {"stream": True, "stream_options": {"include_usage": True}, **options}
    return [chunk async for chunk in await ask(litellm, provider, wire, reply, **wanted)]


def text_of(received: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in received if chunk.choices)


def call_parts(received: list[Any]) -> list[Any]:
    return [part for chunk in received if chunk.choices for part in chunk.choices[0].delta.tool_calls or []]


def reasons(received: list[Any]) -> list[str]:
    found = [chunk.choices[0].finish_reason for chunk in received if chunk.choices]
    return [reason for reason in found if reason]


def usages(received: list[Any]) -> list[tuple[int, int]]:
    found = [getattr(chunk, "usage", None) for chunk in received]
    return [(usage.prompt_tokens, usage.completion_tokens) for usage in found if usage]


def prompt_tokens(provider: ScriptedProvider) -> int:
    return len(json.dumps(provider.requests[-1].body["messages"])) // 4


async def post(
    client: httpx.AsyncClient, provider: ScriptedProvider, wire: Wire, *, stream: bool = False
) -> httpx.Response:
    return await client.post(provider.root + PATHS[wire], json={**QUESTION, "stream": stream})


async def dropped(client: httpx.AsyncClient, provider: ScriptedProvider, wire: Wire, *, stream: bool) -> bytes:
    """What comes before the provider drops the connection."""
    received: list[bytes] = []
    body = {**QUESTION, "stream": stream}
    async with client.stream("POST", provider.root + PATHS[wire], json=body) as response:
        with pytest.raises(httpx.RemoteProtocolError):
            await collect(response, received)
    return b"".join(received)


async def collect(response: httpx.Response, received: list[bytes]) -> None:
    async for part in response.aiter_raw():
        received.append(part)


# Through LiteLLM


@pytest.mark.parametrize("wire", CHATS)
async def test_a_text_and_what_it_took(litellm: Any, provider: ScriptedProvider, wire: Wire) -> None:
    answer = await ask(litellm, provider, wire, WORDS)
    assert answer.choices[0].message.content == WORDS.text
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt_tokens(provider), 4)
    assert [(request.wire, request.model) for request in provider.requests] == [(wire, MODELS[wire].split("/")[1])]


@pytest.mark.parametrize("wire", CHATS)
async def test_a_text_streamed(litellm: Any, provider: ScriptedProvider, wire: Wire) -> None:
    received = await chunks(litellm, provider, wire, WORDS)
    assert text_of(received) == WORDS.text
    assert reasons(received) == ["stop"]
    assert usages(received) == [(prompt_tokens(provider), 4)]
    assert len([chunk for chunk in received if text_of([chunk])]) == 4


@pytest.mark.parametrize("wire", CHATS)
async def test_tool_calls(litellm: Any, provider: ScriptedProvider, wire: Wire) -> None:
    choice = (await ask(litellm, provider, wire, CALLS)).choices[0]
    assert choice.message.content == "wait"
    assert choice.finish_reason == "tool_calls"
    assert [
        (call.id, call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls
    ] == [
        ("call_1", *CALLS.calls[0]),
        ("call_2", *CALLS.calls[1]),
    ]


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_tool_calls_streamed(litellm: Any, provider: ScriptedProvider, wire: Wire) -> None:
    received = await chunks(litellm, provider, wire, CALLS)
    parts = call_parts(received)
    whole = {
        index: "".join(part.function.arguments for part in parts if part.index == index)
        for index in {part.index for part in parts}
    }
    assert {index: json.loads(arguments) for index, arguments in whole.items()} == {
        index: arguments for index, (_, arguments) in enumerate(CALLS.calls)
    }
    assert [part.id for part in parts if part.id] == ["call_1", "call_2"]
    assert text_of(received) == "wait"
    assert reasons(received) == ["tool_calls"]


async def test_litellm_loses_the_place_and_the_id_of_what_ollama_streams(
    litellm: Any, provider: ScriptedProvider
) -> None:
    """Each part is a whole call, and yet all are of index 0: who adds them up by index gets one broken call."""
    received = await chunks(litellm, provider, "ollama", CALLS)
    parts = call_parts(received)
    assert [json.loads(part.function.arguments) for part in parts] == [arguments for _, arguments in CALLS.calls]
    assert [part.index for part in parts] == [0, 0]
    assert not {"call_1", "call_2"} & {part.id for part in parts}
    assert reasons(received) == ["tool_calls"]


@pytest.mark.parametrize("wire", CHATS)
async def test_a_tools_result_is_the_last_thing_said(litellm: Any, provider: ScriptedProvider, wire: Wire) -> None:
    called = [
        {"id": f"call_{number}", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
        for number in (1, 2)
    ]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": f"of {call['id']}"} for call in called]
    messages = [*HELLO, {"role": "assistant", "content": None, "tool_calls": called}, *results]
    await ask(litellm, provider, wire, WORDS, messages=messages)
    await ask(litellm, provider, wire, WORDS, messages=[*messages, {"role": "user", "content": "and?"}])

    said = [(request.last_role, request.last_text) for request in provider.requests]
    assert said == [("tool", "of call_2"), ("user", "and?")]


@pytest.mark.parametrize("wire", ["openai", "ollama"])
async def test_without_usage_litellm_makes_one_up(litellm: Any, provider: ScriptedProvider, wire: Wire) -> None:
    """Which a count made by a provider can't be told from, but for OpenAI's answers that are not streamed."""
    silent = Text(WORDS.text, usage=False)
    answer = await ask(litellm, provider, wire, silent)
    assert (answer.usage.completion_tokens == 0) is (wire == "openai")
    ((_, completion_tokens),) = usages(await chunks(litellm, provider, wire, silent))
    assert completion_tokens > 0


async def test_without_usage_litellm_takes_no_answer_of_anthropics(litellm: Any, provider: ScriptedProvider) -> None:
    with pytest.raises(litellm.APIConnectionError, match="'usage'"):
        await ask(litellm, provider, "anthropic", Text("never mind", usage=False))


@pytest.mark.parametrize("wire", CHATS)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_keeps_its_status_and_its_headers(
    litellm: Any, provider: ScriptedProvider, wire: Wire, stream: bool
) -> None:
    limited = HttpError(429, "slow down", {"retry-after": "7"})
    with pytest.raises(litellm.RateLimitError, match="slow down") as raised:
        await ask(litellm, provider, wire, limited, stream=stream)
    assert raised.value.litellm_response_headers["retry-after"] == "7"


@pytest.mark.parametrize("wire", CHATS)
async def test_litellm_takes_an_early_end_for_a_whole_answer(
    litellm: Any, provider: ScriptedProvider, wire: Wire
) -> None:
    events = stream_events(WORDS, wire)
    after = next(place for place, event in enumerate(events, 1) if b"words" in event)
    received = await chunks(litellm, provider, wire, EndsEarly(WORDS, after))
    assert text_of(received) == "four words"
    assert reasons(received) == ["stop"]


@pytest.mark.parametrize("wire", CHATS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_dribbled_answer_is_the_answer(
    litellm: Any, provider: ScriptedProvider, wire: Wire, stream: bool
) -> None:
    if stream:
        received = await chunks(litellm, provider, wire, Dribble(WORDS))
        assert (text_of(received), reasons(received)) == (WORDS.text, ["stop"])
    else:
        answer = await ask(litellm, provider, wire, Dribble(WORDS))
        assert answer.choices[0].message.content == WORDS.text


async def test_arguments_may_come_as_objects(litellm: Any, provider: ScriptedProvider) -> None:
    objects = ToolCalls(CALLS.calls, as_objects=True)
    whole = (await ask(litellm, provider, "openai", objects)).choices[0].message.tool_calls
    streamed = call_parts(await chunks(litellm, provider, "openai", objects))
    for calls in (whole, streamed):
        assert [json.loads(call.function.arguments) for call in calls] == [arguments for _, arguments in CALLS.calls]


@pytest.mark.parametrize("model", ["openai/x", "ollama/nomic-embed-text"])
async def test_embeddings(litellm: Any, provider: ScriptedProvider, model: str) -> None:
    api_base = provider.url if model.startswith("openai") else provider.root
    answer = await litellm.aembedding(model=model, input=["one", "two words"], api_base=api_base, api_key="key")
    assert [item["embedding"] for item in answer.data] == [vector("one"), vector("two words")]
    assert answer.usage.prompt_tokens == len('["one", "two words"]') // 4
    (request,) = provider.requests
    assert (request.wire, request.last_text, request.last_role) == ("embeddings", "two words", "user")


@pytest.mark.parametrize("model", ["openai/text-embedding-3-small", "ollama/nomic-embed-text"])
async def test_embeddings_of_fewer_dimensions(litellm: Any, provider: ScriptedProvider, model: str) -> None:
    api_base = provider.url if model.startswith("openai") else provider.root
    answer = await litellm.aembedding(model=model, input="one", api_base=api_base, api_key="key", dimensions=4)
    assert [item["embedding"] for item in answer.data] == [vector("one", 4)]


async def test_embeddings_as_base64(client: httpx.AsyncClient, provider: ScriptedProvider) -> None:
    asked = {"model": "x", "input": "one", "dimensions": 3, "encoding_format": "base64"}
    answer = (await client.post(f"{provider.url}/embeddings", json=asked)).json()
    (item,) = answer["data"]
    assert struct.unpack("<3f", base64.b64decode(item["embedding"])) == tuple(vector("one", 3))


# On the wire


@pytest.mark.parametrize("wire", CHATS)
async def test_what_is_streamed_is_what_whole_stream_says(
    client: httpx.AsyncClient, provider: ScriptedProvider, wire: Wire
) -> None:
    provider.script(CALLS, Dribble(CALLS))
    at_once, dribbled = [(await post(client, provider, wire, stream=True)).content for _ in range(2)]
    assert at_once == dribbled == whole_stream(CALLS, wire)


@pytest.mark.parametrize("wire", CHATS)
async def test_an_early_end_ends_after_so_many_events(
    client: httpx.AsyncClient, provider: ScriptedProvider, wire: Wire
) -> None:
    events = stream_events(CALLS, wire)
    provider.script(*(EndsEarly(CALLS, after) for after in range(len(events) + 1)))
    for after in range(len(events) + 1):
        assert (await post(client, provider, wire, stream=True)).content == b"".join(events[:after])


@pytest.mark.parametrize("wire", CHATS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_cut_may_be_anywhere(
    client: httpx.AsyncClient, provider: ScriptedProvider, wire: Wire, stream: bool
) -> None:
    provider.script(ONE_CALL)
    whole = (await post(client, provider, wire, stream=stream)).content
    for after in (0, 1, len(whole) // 3, len(whole) - 1):
        provider.script(Cut(ONE_CALL, after))
        assert await dropped(client, provider, wire, stream=stream) == whole[:after]
    assert provider.abandoned == 0


@pytest.mark.parametrize("wire", CHATS)
async def test_what_is_not_streamed_has_no_early_end(
    client: httpx.AsyncClient, provider: ScriptedProvider, wire: Wire
) -> None:
    provider.script(WORDS, EndsEarly(WORDS, 0))
    assert (await post(client, provider, wire)).json() == (await post(client, provider, wire)).json()


async def test_ollama_streams_unless_it_is_told_not_to(client: httpx.AsyncClient, provider: ScriptedProvider) -> None:
    answer = await client.post(f"{provider.root}/api/chat", json={"model": "model", "messages": HELLO})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert json.loads(answer.text.splitlines()[-1])["done"] is True


@pytest.mark.parametrize("form", [OPENAI, ANTHROPIC, OLLAMA], ids=lambda form: str(form.wire))
@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
async def test_an_error_is_said_in_the_format_asked_for(
    client: httpx.AsyncClient, provider: ScriptedProvider, form: Format, status: int
) -> None:
    provider.script(HttpError(status, "no"))
    answer = await post(client, provider, form.wire)
    assert (answer.status_code, answer.json()) == (status, form.error(status, "no"))


def test_each_format_has_errors_of_its_own() -> None:
    assert OPENAI.error(429, "no") == {"error": {"message": "no", "type": "scripted", "code": 429}}
    assert ANTHROPIC.error(429, "no") == {"type": "error", "error": {"type": "rate_limit_error", "message": "no"}}
    assert ANTHROPIC.error(503, "no") == {"type": "error", "error": {"type": "api_error", "message": "no"}}
    assert OLLAMA.error(429, "no") == {"error": "no"}


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_may_say_nothing(client: httpx.AsyncClient, provider: ScriptedProvider, stream: bool) -> None:
    provider.script(*[EmptyChoices()] * 3)
    openai, anthropic, ollama = [(await post(client, provider, wire, stream=stream)).text for wire in CHATS]
    assert '"choices":[]' in openai
    assert "content_block" not in anthropic
    assert '"content":[]' in anthropic
    assert json.loads(ollama)["message"]["content"] == ""


async def test_garbage_is_sent_as_it_is(client: httpx.AsyncClient, provider: ScriptedProvider) -> None:
    provider.script(Garbage(b"data: {\n\n", "text/event-stream"))
    answer = await post(client, provider, "anthropic", stream=True)
    assert (answer.content, answer.headers["content-type"]) == (b"data: {\n\n", "text/event-stream; charset=utf-8")


@given(texts, st.lists(json_objects, max_size=3))
def test_anthropics_deltas_add_up_to_the_whole(text: str, arguments: list[dict[str, Any]]) -> None:
    events = stream_events(ToolCalls([("look_up", each) for each in arguments], text), "anthropic")
    blocks: dict[int, str] = {}
    for data in (json.loads(event.split(b"data: ", 1)[1]) for event in events):
        if data["type"] == "content_block_start":
            blocks[data["index"]] = ""
        if data["type"] == "content_block_delta":
            blocks[data["index"]] += data["delta"].get("text", "") + data["delta"].get("partial_json", "")
    said = [text] if text else []
    assert list(blocks.values()) == said + [json.dumps(each) for each in arguments]


@given(texts, st.lists(json_objects, max_size=3))
def test_ollamas_lines_add_up_to_the_whole(text: str, arguments: list[dict[str, Any]]) -> None:
    events = stream_events(ToolCalls([("look_up", each) for each in arguments], text), "ollama")
    assert all(event.endswith(b"\n") and event.count(b"\n") == 1 for event in events)
    messages = [json.loads(event)["message"] for event in events]
    assert "".join(message["content"] for message in messages) == text
    calls = [call["function"] for message in messages for call in message.get("tool_calls", [])]
    assert [call["arguments"] for call in calls] == arguments
    assert [call["index"] for call in calls] == list(range(len(arguments)))


@given(texts, texts)
def test_a_vector_is_of_its_text_alone_and_of_length_one(one: str, other: str) -> None:
    assert vector(one) == vector(one)
    assert len(vector(one)) == DIMENSIONS
    assert sum(number**2 for number in vector(one)) == pytest.approx(1)
    assert sum(a * b for a, b in zip(vector(one), vector(other), strict=True)) >= 0


def test_texts_that_share_words_are_close() -> None:
    def closeness(one: str, other: str) -> float:
        return sum(a * b for a, b in zip(vector(one), vector(other), strict=True))

    assert closeness("a red apple", "the red apple") > closeness("a red apple", "three blue ships")


def test_the_last_block_is_what_anthropic_was_last_told() -> None:
    image = {"type": "image", "source": {}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [image, {"type": "text", "text": "found"}]}
    messages = [{"role": "user", "content": [{"type": "text", "text": "first"}, result]}]
    request = RecordedRequest("m", {"messages": messages}, "anthropic")
    assert (request.last_role, request.last_text) == ("tool", "found")


# Who comes and goes


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wire", CHATS)
@pytest.mark.parametrize("reply", [Hang(), Stalls(WORDS, 2), Slow(WORDS, FOREVER)], ids=lambda reply: str(reply)[:6])
async def test_a_client_that_leaves_early_is_seen(
    client: httpx.AsyncClient, provider: ScriptedProvider, wire: Wire, reply: Reply, stream: bool
) -> None:
    provider.script(reply)
    asking = asyncio.create_task(post(client, provider, wire, stream=stream))
    await until(lambda: provider.in_flight == 1)
    assert provider.abandoned == 0
    asking.cancel()
    await until(lambda: provider.abandoned == 1)
    assert (provider.in_flight, provider.most_in_flight) == (0, 1)


async def test_a_client_that_leaves_in_the_middle_is_seen(provider: ScriptedProvider) -> None:
    endless = Text("word " * 1_000_000)
    provider.script(endless)
    body = {**QUESTION, "stream": True}
    async with (
        httpx.AsyncClient(timeout=None) as client,
        client.stream("POST", f"{provider.url}/chat/completions", json=body) as response,
    ):
        await anext(response.aiter_raw())
        assert provider.in_flight == 1
    await until(lambda: provider.abandoned == 1)
    assert provider.in_flight == 0


@pytest.mark.parametrize("wire", CHATS)
async def test_who_has_the_whole_answer_abandons_nothing(
    client: httpx.AsyncClient, provider: ScriptedProvider, wire: Wire
) -> None:
    for reply in (
        WORDS,
        HttpError(500),
        Garbage(),
        EmptyChoices(),
        EndsEarly(WORDS, 1),
        Slow(WORDS, 0),
        Dribble(WORDS),
    ):
        provider.script(reply)
        await post(client, provider, wire, stream=True)
        assert provider.in_flight == 0
    await client.aclose()
    assert (provider.abandoned, provider.most_in_flight) == (0, 1)


async def test_most_in_flight_is_how_many_were_answered_at_once(
    client: httpx.AsyncClient, provider: ScriptedProvider
) -> None:
    provider.default = lambda _: Hang()
    asking = [asyncio.create_task(post(client, provider, "openai")) for _ in range(12)]
    await until(lambda: provider.in_flight == 12)
    provider.release()
    assert {(await each).status_code for each in asking} == {503}
    assert (provider.in_flight, provider.most_in_flight, provider.abandoned) == (0, 12, 0)


@pytest.mark.parametrize("wire", CHATS)
async def test_what_stalls_goes_on_when_it_is_let_go_of(
    client: httpx.AsyncClient, provider: ScriptedProvider, wire: Wire
) -> None:
    events = stream_events(WORDS, wire)
    begun, received = b"".join(events[:3]), bytearray()
    provider.script(Stalls(WORDS, 3))
    async with client.stream("POST", provider.root + PATHS[wire], json=QUESTION) as response:
        async for part in response.aiter_raw():
            received += part
            if received == begun:
                assert provider.in_flight == 1
                provider.release()
    assert bytes(received) == b"".join(events)


async def test_what_is_slow_answers_at_last(client: httpx.AsyncClient, provider: ScriptedProvider) -> None:
    provider.script(Slow(HttpError(418), 0.01), Slow(WORDS, FOREVER))
    assert (await post(client, provider, "openai")).status_code == 418
    asking = asyncio.create_task(post(client, provider, "openai"))
    await until(lambda: provider.in_flight == 1)
    provider.release()
    assert (await asking).json()["choices"][0]["message"]["content"] == WORDS.text


async def test_a_reset_begins_to_count_anew(client: httpx.AsyncClient, provider: ScriptedProvider) -> None:
    provider.script(Hang())
    asking = asyncio.create_task(post(client, provider, "openai"))
    await until(lambda: provider.in_flight == 1)
    provider.reset()
    assert (provider.calls, provider.in_flight, provider.most_in_flight, provider.abandoned) == (0, 0, 0, 0)
    await asking
    assert provider.in_flight == 0


async def test_who_keeps_no_requests_counts_all_the_same(client: httpx.AsyncClient) -> None:
    with ScriptedProvider(keeps_requests=False) as provider:
        await post(client, provider, "openai")
        assert (provider.calls, provider.most_in_flight) == (0, 1)
