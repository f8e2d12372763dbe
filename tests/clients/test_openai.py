"""OpenAI's own package for JavaScript, and the AI SDK with `@ai-sdk/openai`, against `/v1`."""

from pathlib import Path

import pytest

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Stalls, Text, ToolCalls
from tests.agents.tools import effects
from tests.harness import node
from tests.harness.caller import Caller

SCRIPT = Path(__file__).with_name("openai.mjs")


async def conversations(ada: Caller) -> list[int]:
    """How many runs each conversation has."""
    ids = [run["conversation_id"] for run in (await ada.get("/v1/runs"))["data"]]
    return sorted(ids.count(each) for each in set(ids))


async def test_a_conversation(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Text("One."), Text("Two."), Text("Three."))
    said = await node.run(SCRIPT, ada, SCENARIO="plain")

    assert said["texts"] == ["One.", "Two.", "One."]
    assert said["chat"] == "Three."
    assert "support" in said["models"]
    assert await conversations(ada) == [1, 2]


@pytest.mark.parametrize("scenario", ["approval", "ai_approval"])
@pytest.mark.parametrize("answer", ["approve", "reject"])
async def test_an_approval(ada: Caller, provider: ScriptedProvider, scenario: str, answer: str) -> None:
    provider.script(ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 1})]), Text("Done."))
    said = await node.run(SCRIPT, ada, SCENARIO=scenario, ANSWER=answer)

    assert said["text"] == "Done."
    assert len(effects("pay", ada.tenant_id)) == (answer == "approve")
    assert await conversations(ada) == [1]


async def test_a_stream_is_resumed(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Stalls(Text("One two three four."), after=2))
    async with node.running(SCRIPT, ada, SCENARIO="resumed") as script:
        assert (await script.said()).startswith("One")
        provider.release()
        said = await script.said()
        await script.ended()

    assert said["text"] == said["stored"] == "One two three four."


async def test_a_conversation_of_the_ai_sdk(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(Text("One."), Text("Two."), Text("Three."))
    said = await node.run(SCRIPT, ada, SCENARIO="ai")

    assert said == {"streamed": "One.", "text": "Two.", "chat": "Three."}
    assert await conversations(ada) == [1, 2]


async def test_a_tool_of_the_ai_sdk(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("weather", {"town": "Rome"})]), Text("Sunny."))
    said = await node.run(SCRIPT, ada, SCENARIO="ai_tool")

    assert said == {"text": "Sunny.", "steps": 2}
    assert "sun in Rome" in str(provider.requests[-1].body["messages"])
    assert await conversations(ada) == [2]
