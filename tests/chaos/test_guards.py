"""Each guard is taken out once, in the real application on the real servers: the check that watches it goes red.

What can't be seen to fail proves nothing. Where the database guards too, that guard is taken out with the code's.
"""

import asyncio
import dataclasses
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import TextClause, text

import activities.dispatches
import activities.proposals
from holdfast.domain.events import RunStarted
from holdfast.domain.tools import Declaration, Terms, terms
from holdfast.services.messages import Messages
from holdfast.services.relay import Relay
from holdfast.store import audit, confirmations, event_log, messages, turns
from holdfast.testing.provider import ScriptedProvider
from holdfast.testing.replies import Slow, Text, ToolCalls
from tests.agents.tools import effects
from tests.chaos.checks import Facts, Json, wrong_in
from tests.conftest import new_tenant
from tests.harness.audit import AUDITED
from tests.harness.audit import wrong as verified
from tests.harness.caller import Caller
from tests.harness.servers import Servers
from tests.harness.stage import Stage, playing

_LEFT = "SELECT count(*) FROM runs WHERE completed_at IS NULL AND tenant_id = $1"


@dataclasses.dataclass
class Scene:
    """An application whose guard is out, and what is known of it in the end."""

    ada: Caller
    stage: Stage
    provider: ScriptedProvider
    accepted: list[str] = dataclasses.field(default_factory=list)
    told: list[Json] = dataclasses.field(default_factory=list)
    changed: set[str] = dataclasses.field(default_factory=set)

    async def wrong(self) -> set[str]:
        """The names of the checks that go red."""
        runs = (await self.ada.get("/v1/runs", limit=100))["data"]
        tool_names = {call["tool"] for run in runs for call in run["tool_calls"]}
        facts = Facts(
            accepted=self.accepted,
            runs=runs,
            confirmations=(await self.ada.get("/v1/confirmations", limit=100))["data"],
            effects=[
                {**found, "applied": True, "tool": _AS_CALLED.get(name, name)}
                for name in tool_names
                for found in effects(name, self.ada.tenant_id)
            ],
            messages={
                one: (await self.ada.get(f"/v1/conversations/{one}/messages"))["data"]
                for one in {run["conversation_id"] for run in runs}
            },
            told=self.told,
            resolved=set(),
            ever_ambiguous=set(),
            changed=self.changed,
            unexpected=[],
            audited=[dict(row) for row in await self.stage.rows(AUDITED, self.ada.tenant_id)],
            audit_wrong=await verified(self.stage.database, self.ada.tenant_id),
            left={"open runs": (await self.stage.rows(_LEFT, self.ada.tenant_id))[0]["count"]},
        )
        for call in facts.calls():
            call["tool"] = _AS_CALLED.get(call["tool"], call["tool"])
        return {wrong.partition(":")[0] for wrong in wrong_in(facts)}

    async def decide(self, asked: Json, caller: Caller, decision: str) -> None:
        response = await caller.decide(asked, decision)
        stands = response.json().get("status") if response.status_code == 200 else None
        self.told.append(
            {
                "confirmation_id": asked["id"],
                "person": caller.person,
                "decision": decision,
                "status": response.status_code,
                "stands": stands,
            }
        )


#: What the checks call the tools of these scenes.
_AS_CALLED = {"hang_sending": "charge", "send": "grant"}


@asynccontextmanager
async def scene(running_servers: Servers, provider: ScriptedProvider) -> AsyncIterator[Scene]:
    """An application of the scene's own, on a database that nobody else minds."""
    async with playing(running_servers, provider, f"guards-{uuid.uuid4().hex[:12]}") as stage:
        yield Scene(await stage.caller(new_tenant()), stage, provider)


async def replied_after(playing: Scene, text_: str, **options: Any) -> Json:
    """Send a message, and wait for its end."""
    run_id = await playing.ada.start(text_, **options)
    playing.accepted.append(run_id)
    return await playing.ada.ended(run_id)


async def say_in_turn(playing: Scene) -> None:
    """Two messages of one conversation, of which the first takes longer to answer."""
    playing.provider.script(Text("done: begin"))
    first = await playing.ada.send("begin")
    await playing.ada.ended(first.json()["run_id"])
    playing.provider.script(Slow(Text("done: slow"), 1.5), Text("done: quick"))
    sent = [await playing.ada.start(one, conversation_id=first.json()["conversation_id"]) for one in ("slow", "quick")]
    await asyncio.gather(*(playing.ada.ended(run_id) for run_id in sent))


async def let_it_hang(playing: Scene) -> None:
    """A tool that can't be repeated is cut at its timeout."""
    playing.provider.script(ToolCalls([("hang_sending", {"marker": playing.ada.tenant_id})]))
    run = await playing.ada.ask("hang")
    for asked in await playing.ada.pending(run):
        body = {"outcome": "committed", "evidence": "I looked."}
        await playing.ada.http.post(f"/v1/tool-calls/{asked['tool_call_id']}/resolution", json=body)
    await playing.ada.ended(run["id"])


async def change_what_is_approved(playing: Scene) -> None:
    """The arguments of a call are changed behind the application's back while a person looks at them."""
    playing.provider.script(ToolCalls([("send", {"marker": "shown"})]), Text("done: send"))
    run = await playing.ada.ask("send")
    asked = await playing.ada.only_pending(run)
    playing.changed.add(asked["tool_call_id"])
    changed = json.dumps({"marker": playing.ada.tenant_id})
    await playing.stage.rows(
        "UPDATE tool_calls SET arguments = $2 WHERE tool_call_id = $1 RETURNING 1", asked["tool_call_id"], changed
    )
    await playing.decide(asked, playing.ada, "approve")
    await playing.ada.ended(run["id"])


async def decide_twice(playing: Scene) -> None:
    """Two people decide at once."""
    playing.provider.script(ToolCalls([("send", {"marker": playing.ada.tenant_id})]), Text("done: send"))
    run = await playing.ada.ask("send")
    asked = await playing.ada.only_pending(run)
    bob = await playing.stage.caller(playing.ada.tenant_id, "bob")
    await playing.decide(asked, playing.ada, "approve")
    await playing.decide(asked, bob, "approve")
    await playing.ada.ended(run["id"])


async def send_twice(playing: Scene) -> None:
    """A message is delivered again, and both deliveries are answered."""
    for _ in range(2):
        sent = (await playing.ada.send("hello", key="k")).json()
        playing.accepted.append(sent["run_id"])
    playing.provider.default = lambda request: Text(f"done: {request.last_text}")
    for run_id in playing.accepted:
        await playing.ada.ended(run_id)
    if len(set(playing.accepted)) > 1:
        raise AssertionError("one message, two runs")


def _without(statement: TextClause, guard: str) -> TextClause:
    assert guard in statement.text
    changed = text(statement.text.replace(guard, ""))
    return changed.bindparams(*statement._bindparams.values())


def _always_repeated(declared: Declaration, ruled: Declaration, *, takes_key: bool) -> Terms:
    return dataclasses.replace(terms(declared, ruled, takes_key=takes_key), attempts=2)


async def _no_obstacle(*_: object) -> None:
    return None


def without_the_word_on_repeats(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("holdfast.tools.registry.terms", _always_repeated)


def without_the_digest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(activities.dispatches, "obstacle", _no_obstacle)


def without_compare_and_set(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(confirmations, "_DECIDE", _without(confirmations._DECIDE, "AND status = 'pending'"))


def without_the_order_of_turns(patch: pytest.MonkeyPatch) -> None:
    async def takes(connection: Any, tenant_id: str, run_id: str) -> turns.TurnTaken | None:
        of_run = {"tenant_id": tenant_id, "run_id": run_id}
        row = (await connection.execute(turns._LOCK, of_run)).one()
        told = event_log.parameters([RunStarted()])
        await connection.execute(turns._TAKE, {**of_run, **told, "conversation_id": row.conversation_id})
        return turns.TurnTaken(row.agent, row.agent_version)

    patch.setattr(turns, "take", takes)


def without_the_relay(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Relay) -> int:
        return 0

    async def never_started(self: Messages, run: object) -> None:
        return None

    patch.setattr(Relay, "relay_due", nothing)
    patch.setattr(Messages, "_start", never_started)


def without_the_record_of(patch: pytest.MonkeyPatch, outcome: str) -> None:
    append = audit.append

    async def forgetful(connection: Any, tenant_id: str, *entries: audit.Entry) -> None:
        await append(connection, tenant_id, *(entry for entry in entries if entry.outcome != outcome))

    patch.setattr(audit, "append", forgetful)


async def send_once(playing: Scene) -> None:
    """A message whose start Temporal never hears of."""
    playing.accepted.append(await playing.ada.start("hello"))


GUARDS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Scene], Awaitable[None]], str]] = {
    "what can't be repeated is not": (
        without_the_word_on_repeats,
        let_it_hang,
        "nothing_that_cannot_be_repeated_happened_twice",
    ),
    "what runs is what was approved": (
        without_the_digest,
        change_what_is_approved,
        "nothing_ran_without_an_accepted_approval",
    ),
    "one decision counts": (without_compare_and_set, decide_twice, "nobody_was_told_otherwise"),
    "one run at a time": (without_the_order_of_turns, say_in_turn, "no_reply_is_given_twice_or_out_of_order"),
    "what is handed out is on record": (
        lambda patch: without_the_record_of(patch, "dispatched"),
        let_it_hang,
        "every_effect_has_one_intent_and_one_outcome_on_record",
    ),
    "who decided is on record": (
        lambda patch: without_the_record_of(patch, "resolved"),
        let_it_hang,
        "every_decision_is_on_record_once",
    ),
    "what was accepted is started": (without_the_relay, send_once, "nothing_is_left_between_states"),
}


@pytest.mark.parametrize("guard", GUARDS)
async def test_without_a_guard_its_check_goes_red(
    running_servers: Servers, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    take_out, act, check = GUARDS[guard]
    async with scene(running_servers, provider) as whole:
        if act is not send_once:
            await act(whole)
            assert check not in await whole.wrong(), "it is green with the guard in"
    provider.reset()
    take_out(monkeypatch)
    async with scene(running_servers, provider) as playing_without:
        await act(playing_without)
        assert check in await playing_without.wrong()


async def test_without_the_key_a_message_delivered_again_is_answered_twice(
    running_servers: Servers, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never_seen(*_: object) -> None:
        return None

    async with scene(running_servers, provider) as whole:
        await send_twice(whole)
    provider.reset()
    monkeypatch.setattr(messages, "accepted_under_key", never_seen)
    async with scene(running_servers, provider) as playing_without:
        await playing_without.stage.rows("DROP INDEX uq_messages_idempotency_key")
        with pytest.raises(AssertionError, match="one message, two runs"):
            await send_twice(playing_without)
