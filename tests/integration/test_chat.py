"""Somebody talks to an agent at a terminal: asked, interrupted, cut off, and back again."""

import re

from holdfast.dev.ports import free_port
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Slow, Stalls, Text, ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller
from tests.harness.conditions import until
from tests.harness.stage import Stage, serving_api
from tests.harness.terminal import at_a_terminal


async def test_a_conversation_through_a_decision_elsewhere_and_a_restart_of_the_api(
    ada: Caller, stage: Stage, provider: ScriptedProvider
) -> None:
    pay = ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 7})])
    counted = Stalls(Text("One two three **four** five."), after=3)
    provider.script(pay, Text("Paid."), counted, pay, Text("As you like."))
    port = free_port()
    with at_a_terminal(ada, "chat", "support", url=f"http://127.0.0.1:{port}") as terminal:
        async with serving_api(stage.database_url, stage.task_queue, port):
            await terminal.shows("you> ")
            terminal.type("pay")
            await terminal.shows("amount = 7")
            await terminal.shows("pay? ")
            terminal.type("maybe")
            await terminal.shows("Type one of these")
            (asked,) = (await ada.get("/v1/confirmations", status="pending"))["data"]
            await ada.decide(asked, reason="by hand")
            await terminal.shows("approve: by hand")
            await terminal.shows("Paid.")
            await terminal.shows("you> ", times=2)
            terminal.type("count")
            await terminal.shows("One two")
        await terminal.shows("the connection is lost")
        provider.release()
        async with serving_api(stage.database_url, stage.task_queue, port):
            await terminal.shows("One two three four five.")
            await terminal.shows("you> ", times=3)
            terminal.type("pay")
            await terminal.shows("pay? ", times=3)
            terminal.type("n too much")
            await terminal.shows("reject: too much")
            await terminal.shows("As you like.")
            await terminal.shows("you> ", times=4)
            terminal.interrupt()
            assert await terminal.ended() == 130
    conversation = asked["conversation_id"]
    assert f"chat support --conversation {conversation}" in terminal.seen
    transcript = await ada.get(f"/v1/conversations/{conversation}/messages")
    assert [message["text"] for message in transcript["data"]][1::2] == [
        "Paid.",
        "One two three **four** five.",
        "As you like.",
    ]
    assert len(effects("pay", ada.tenant_id)) == 1


async def test_whoever_leaves_a_run_comes_back_to_it(ada: Caller, provider: ScriptedProvider) -> None:
    pay = ToolCalls([("pay", {"marker": ada.tenant_id, "amount": 7})])
    provider.script(Slow(pay, 60), Text("Paid in the end."))
    with at_a_terminal(ada, "chat", "support", "pay") as terminal:
        await until(lambda: provider.in_flight == 1)
        terminal.type("y")
        provider.release()
        await terminal.shows("pay? ")
        terminal.interrupt()
        assert await terminal.ended() == 130
    assert effects("pay", ada.tenant_id) == [], "what was typed before it was asked is no consent"
    (back,) = re.findall(r"chat (--resume run_\w+)", terminal.seen)
    with at_a_terminal(ada, "chat", *back.split()) as terminal:
        await terminal.shows("pay? ")
        terminal.type("y")
        await terminal.shows("Paid in the end.")
        await terminal.shows("you> ")
        terminal.type("\x04")
        assert await terminal.ended() == 0
    assert len(effects("pay", ada.tenant_id)) == 1
