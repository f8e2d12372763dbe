"""People at the command line: they edit, answer, cancel, and say what became of a call."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Text, ToolCalls
from tests.agents.tools import effects
from tests.harness.caller import Caller, Json

_HOLDFAST = str(Path(sys.executable).parent / "holdfast")


async def holdfast(caller: Caller, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command, with nobody at the terminal."""
    environment = {**os.environ, "HOLDFAST_URL": str(caller.http.base_url), "HOLDFAST_API_KEY": caller.key}
    return await asyncio.to_thread(
        subprocess.run,
        [_HOLDFAST, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


async def said(caller: Caller, *arguments: str) -> str:
    ended = await holdfast(caller, *arguments)
    assert ended.returncode == 0, ended.stderr
    return str(ended.stdout)


async def waiting(caller: Caller, provider: ScriptedProvider) -> tuple[Json, Json]:
    provider.script(ToolCalls([("pay", {"marker": caller.tenant_id, "amount": 7})]), Text("Done."))
    run = await caller.ask("pay")
    return run, await caller.only_pending(run)


async def test_edit(ada: Caller, provider: ScriptedProvider) -> None:
    run, asked = await waiting(ada, provider)
    wrong = await holdfast(ada, "confirmations", "edit", asked["id"], "[7]")
    misfit = await holdfast(ada, "confirmations", "edit", asked["id"], '{"amount": "much"}')
    answer = await said(ada, "confirmations", "edit", asked["id"], f'{{"marker": "{ada.tenant_id}", "amount": 3}}')

    assert [(one.returncode, one.stderr.count("\n")) for one in (wrong, misfit)] == [(1, 1), (1, 1)]
    assert answer == f'approved: pay(marker="{ada.tenant_id}", amount=3)\n'
    assert (await ada.ended(run["id"]))["tool_calls"][0]["result"] == {"paid": 3}


async def test_respond(ada: Caller, provider: ScriptedProvider) -> None:
    run, asked = await waiting(ada, provider)
    assert "rejected: pay" in await said(ada, "confirmations", "respond", asked["id"], "By hand.")
    await ada.ended(run["id"])
    assert "By hand." in provider.requests[-1].last_text
    assert effects("pay", ada.tenant_id) == []


async def test_cancel(ada: Caller, provider: ScriptedProvider) -> None:
    run, _ = await waiting(ada, provider)
    assert run["id"] in await said(ada, "runs", "cancel", run["id"])
    assert (await ada.ended(run["id"]))["status"] == "cancelled"
    assert await said(ada, "runs", "cancel", run["id"]) == f"{run['id']}  cancelled\n"


async def test_resolve(ada: Caller, provider: ScriptedProvider) -> None:
    provider.script(ToolCalls([("hang_sending", {"marker": f"/nowhere/{ada.tenant_id}"})]), Text("Done."))
    run = await ada.ask("send")
    asked = await ada.only_pending(run)
    call = asked["tool_call_id"]

    assert "what became of it?" in await said(ada, "confirmations", "list")
    assert f"ambiguous (runs resolve {call} …)" in await said(ada, "runs", "show", run["id"])
    answer = await said(ada, "runs", "resolve", call, "committed", "--evidence", "I looked.", "--result", '{"no": 7}')
    assert answer.startswith("succeeded: hang_sending")
    assert (await ada.ended(run["id"]))["tool_calls"][0]["result"] == {"no": 7}


async def test_chat_follows_a_word_that_decides(ada: Caller, provider: ScriptedProvider) -> None:
    run, _ = await waiting(ada, provider)
    assert await said(ada, "chat", "support", "yes", "--conversation", run["conversation_id"]) == "Done.\n"
    assert len(effects("pay", ada.tenant_id)) == 1


async def test_events(ada: Caller, provider: ScriptedProvider) -> None:
    run, asked = await waiting(ada, provider)
    by_now = (await said(ada, "runs", "events", run["id"])).splitlines()
    following = asyncio.create_task(said(ada, "runs", "events", run["id"], "--follow", "--json"))
    await ada.decide(asked)
    told = [json.loads(line) for line in (await following).splitlines()]
    unknown = await holdfast(ada, "runs", "events", "run_unknown")

    assert [line.split()[1] for line in by_now][-1] == "confirmation.requested"
    assert [one["id"] for one in told] == list(range(1, len(told) + 1))
    assert [one["event"] for one in told][-2:] == ["message.completed", "run.completed"]
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
