"""The chaos, from the first message to the last check."""

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHandle

from holdfast.temporal.client import connect
from tests.chaos.cast import TENANT, Cast
from tests.chaos.checks import Facts, Json
from tests.chaos.monkey import Moments, Monkey, Wanted
from tests.chaos.people import People
from tests.harness.audit import AUDITED
from tests.harness.conditions import until
from workflows import names

#: What three effects of a run may be; each kind is there several times over many runs.
_PLANS = (
    "charge:{0}a transfer:{0}b, then ship:{0}c",
    "look:{0}l, then charge:{0}a transfer:{0}b ship:{0}c",
    "grant:{0}a transfer:{0}b, then charge:{0}c",
    "pay_out:{0}a charge:{0}b, then transfer:{0}c",
    "transfer:{0}a, then transfer:{0}b, then charge:{0}c",
)

#: How many races are run at once: enough not to wait for each deadline, few enough to be near it.
_RACES_AT_ONCE = 5

#: How long the rest may take once nothing is broken any more, in seconds.
DRAINED_WITHIN_S = 20

_LEFT = {
    "open runs": "SELECT count(*) FROM runs WHERE completed_at IS NULL",
    "held turns": "SELECT count(*) FROM conversations WHERE turn_run_id IS NOT NULL",
    "words unsaid": "SELECT count(*) FROM outbox",
    "pending confirmations": "SELECT count(*) FROM confirmations WHERE status = 'pending'",
}


@dataclass(frozen=True)
class Scale:
    """How much of everything. `conversations` of `messages` each make the runs of the storm, of three effects each."""

    conversations: int
    messages: int
    wanted: Wanted
    rest_s: tuple[float, float]
    races: int
    changed: int
    forged: int


@dataclass(frozen=True)
class Report:
    """What was done and found."""

    seed: int
    counts: dict[str, int]
    drained_s: float
    facts: Facts

    def lines(self) -> list[str]:
        """For people to read."""
        counted = ", ".join(f"{count} {what}" for what, count in self.counts.items())
        return [f"seed {self.seed}: {counted}", f"drained {self.drained_s:.1f} s after the last fault"]


async def play(cast: Cast, scale: Scale, seed: int) -> Report:
    """Play it all on a cast that has been started."""
    chance = random.Random(seed)
    people, monkey = People(cast, chance), Monkey(cast, chance)
    counts: Counter[str] = Counter()
    stop = asyncio.Event()
    try:
        looking = asyncio.create_task(people.look_after(stop))
        storm = asyncio.gather(*(_converse(people, number, scale.messages) for number in range(scale.conversations)))
        await monkey.rage(monkey.faults(scale.wanted), scale.rest_s)
        await storm
        moments = Moments(cast, people)
        for moment in (
            moments.after_the_effect,
            moments.after_the_reservation,
            moments.after_the_message_is_committed,
            moments.after_the_decision_is_stored,
        ):
            await moment()
            counts["worst moments"] += 1
        drained_s = await _drain(cast)
        stop.set()
        await looking
        counts["races"] = await _race(people, scale.races)
        counts["forged signals"] = await _forge(people, scale.forged)
        changed = await _change(cast, people, scale.changed)
        counts["changed arguments"] = len(changed)
        await _drain(cast)
        facts = await _facts(cast, people, changed)
    finally:
        await people.close()
    counts["runs"] = len(facts.runs)
    counts["effects"] = len({effect["marker"] for effect in facts.effects if effect["tool"] != "look"})
    counts["calls succeeded"] = sum(call["status"] == "succeeded" for call in facts.calls())
    counts["outcomes unknown at some time"] = len(facts.ever_ambiguous)
    return Report(seed, {**monkey.done, **counts}, drained_s, facts)


async def _converse(people: People, number: int, messages: int) -> None:
    conversation: str | None = None
    for message in range(messages):
        name = f"{number}-{message}"
        plan = _PLANS[(number + message) % len(_PLANS)].format(name)
        sent = await people.send(f"do {plan}", f"key {name}", conversation)
        conversation = sent["conversation_id"]


async def _drain(cast: Cast) -> float:
    """Wait until no run is open and no word unsaid; answers with how long it took, in seconds."""
    began = time.monotonic()

    async def is_drained() -> bool:
        return not any([(await cast.rows(query))[0]["count"] for query in _LEFT.values()])

    await until(is_drained)
    return time.monotonic() - began


async def _waiting(people: People, what: str, count: int, agent: str, tool: str) -> list[tuple[Json, Json]]:
    """Runs that wait for a person, each with its confirmation."""
    sent = await asyncio.gather(
        *(people.send(f"do {tool}:{what}-{number}", f"key {what}-{number}", agent=agent) for number in range(count))
    )
    return [(one, await _asked(people, one)) for one in sent]


async def _asked(people: People, sent: Json) -> Json:
    found: list[Json] = []

    async def is_there() -> bool:
        found[:] = (await people.get("/v1/confirmations", run_id=sent["run_id"]))["data"]
        return bool(found)

    await until(is_there)
    return found[0]


async def _race(people: People, count: int) -> int:
    """Approve, approve and reject within 100 ms of the deadline: exactly one of the four wins, and all agree on it."""
    for first in range(0, count, _RACES_AT_ONCE):
        numbers = range(first, min(first + _RACES_AT_ONCE, count))
        await asyncio.gather(*(_race_once(people, number) for number in numbers))
    return count


async def _race_once(people: People, number: int) -> None:
    sent = await people.send(f"do grant:race-{number}", f"key race-{number}", agent="racing")
    asked = await _asked(people, sent)
    deadline = datetime.fromisoformat(asked["deadline"])
    early_s = people.random.uniform(-0.1, 0.1)
    await asyncio.sleep(max(0.0, (deadline - datetime.now(UTC)).total_seconds() - early_s))
    await asyncio.gather(
        people.decide(asked, "ada", "approve"),
        people.decide(asked, "bob", "approve"),
        people.decide(asked, "eve", "reject"),
    )


async def _forge(people: People, count: int) -> int:
    """Whoever reaches Temporal's port says that it was approved: nothing runs, and the wait goes on."""
    waiting = await _waiting(people, "forged", count, "busy", "grant")
    client = await connect()
    for sent, asked in waiting:
        handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(f"{TENANT}:busy:{sent['message_id']}")
        for forged in (asked["id"], "approve", {"decision": "approve", "confirmation_id": asked["id"]}, 7):
            await handle.signal(names.DECIDED, forged)
        await handle.signal(names.TURN_FREED)
        await handle.signal("no such signal", asked["id"])
    for sent, asked in waiting:
        still = await people.get(f"/v1/confirmations/{asked['id']}")
        assert still["status"] == "pending", "a forged signal decided"
        await people.decide(asked, "bob", "reject")
        await _ended(people, sent)
    return count


async def _change(cast: Cast, people: People, count: int) -> set[str]:
    """Somebody who can write to the database changes what was approved, before it runs; answers with the calls' ids."""
    waiting = await _waiting(people, "changed", count, "busy", "grant")
    changed = {str(asked["tool_call_id"]) for _, asked in waiting}
    for worker in cast.workers:
        worker.kill()
    for _, asked in waiting:
        await people.decide(asked, "bob", "approve")
    # As the table's owner would, in the call and not in the confirmation that was shown.
    await cast.rows(
        "UPDATE tool_calls SET arguments = jsonb_set(arguments::jsonb, '{amount}', '1000000')::json"
        " WHERE tool = 'grant' AND tool_call_id = ANY($1)",
        list(changed),
    )
    await asyncio.gather(*(worker.start() for worker in cast.workers))
    for sent, _ in waiting:
        await _ended(people, sent)
    return changed


async def _ended(people: People, sent: Json) -> Json:
    while True:
        run = await people.get(f"/v1/runs/{sent['run_id']}", wait=20)
        if run["completed_at"] is not None:
            return run
        await asyncio.sleep(0.1)


async def _facts(cast: Cast, people: People, changed: set[str]) -> Facts:
    runs = await people.everything("/v1/runs")
    audited = [dict(row) for row in await cast.rows(AUDITED, TENANT)]
    return Facts(
        accepted=[sent["run_id"] for sent in people.sent.values()],
        runs=runs,
        confirmations=await people.everything("/v1/confirmations"),
        effects=[json.loads(line) for line in cast.effects_log.read_text().splitlines()],
        messages={
            conversation: await people.everything(f"/v1/conversations/{conversation}/messages")
            for conversation in {run["conversation_id"] for run in runs}
        },
        told=[asdict(told) for told in people.told],
        resolved={row["subject_id"] for row in audited if (row["detail"] or "").startswith("resolved")},
        ever_ambiguous={row["subject_id"] for row in audited if row["outcome"] == "ambiguous"},
        audited=audited,
        audit_wrong=await cast.verify(),
        changed=changed,
        unexpected=people.unexpected,
        left={what: (await cast.rows(query))[0]["count"] for what, query in _LEFT.items()},
    )


def keep(report: Report, folder: Path) -> Path:
    """Keep the facts in a file, for whoever looks for the cause of what is wrong."""
    path = folder / "facts.json"
    path.write_text(json.dumps(asdict(report.facts), default=list, indent=1))
    return path
