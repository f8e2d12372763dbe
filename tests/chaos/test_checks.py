"""Each check goes red when what it guards against has happened: facts are made wrong, one at a time."""

import copy
from collections.abc import Callable

import pytest

from tests.chaos.checks import CHECKS, Facts, Json, wrong_in


def call(call_id: str, tool: str, status: str = "succeeded", attempts: int = 1) -> Json:
    arguments: Json = {"marker": call_id, **({"amount": 7} if tool in ("grant", "pay_out") else {})}
    return {
        "id": call_id,
        "tool": tool,
        "status": status,
        "attempts": attempts,
        "arguments": arguments,
        "error": None,
    }


def effect(call_id: str, tool: str, key: str | None = None) -> Json:
    return {"tool": tool, "marker": call_id, "key": key, "applied": True, "amount": 7}


def asked(call_id: str, status: str) -> Json:
    return {
        "id": f"conf-{call_id}",
        "kind": "call",
        "decided_by": "bob",
        "tool_call_id": call_id,
        "status": status,
        "arguments": {"amount": 7},
    }


def entry(kind: str, outcome: str, subject_id: str | None, **more: object) -> Json:
    nothing = {"run_id": None, "attempt": None, "person": None, "detail": None}
    return {"kind": kind, "outcome": outcome, "subject_id": subject_id, **nothing, **more}


def on_record() -> list[Json]:
    ended = {"a": ["succeeded"], "b": ["superseded"], "c": ["succeeded"], "e": ["ambiguous"]}
    calls = [entry("tool_call", "dispatched", call_id, attempt=1) for call_id in ended]
    outcomes = [
        entry("tool_call", outcome, call_id, attempt=1) for call_id, outcomes in ended.items() for outcome in outcomes
    ]
    again = [entry("tool_call", outcome, "b", attempt=2) for outcome in ("dispatched", "succeeded")]
    asked = [entry("confirmation", "pending", f"conf-{call_id}") for call_id in ("c", "d")]
    decided = [
        entry("confirmation", "approved", "conf-c", person="bob"),
        entry("confirmation", "rejected", "conf-d", person="bob"),
    ]
    runs = [
        entry(kind, outcome, None, run_id=run_id)
        for run_id in ("run-1", "run-2")
        for kind, outcome in (("message", "accepted"), ("message", "replied"), ("run", "completed"))
    ]
    return [*calls, *outcomes, *again, *asked, *decided, *runs]


def run(run_id: str, text: str, at: str, *calls: Json) -> Json:
    return {
        "id": run_id,
        "conversation_id": "conv",
        "status": "completed",
        "degraded": False,
        "error": None,
        "reply": f"done: {text}",
        "completed_at": at,
        "tool_calls": list(calls),
    }


@pytest.fixture
def facts() -> Facts:
    """All is as it should be."""
    calls = [
        call("a", "charge"),
        call("b", "transfer", attempts=2),
        call("c", "grant"),
        call("d", "grant", "rejected", 0),
        call("e", "charge", "ambiguous"),
    ]
    told = {"confirmation_id": "conf-c", "person": "bob", "decision": "approve", "status": 200, "stands": "approved"}
    refused = {"confirmation_id": "conf-c", "person": "eve", "decision": "reject", "status": 409, "stands": None}
    return Facts(
        accepted=["run-1", "run-2"],
        runs=[run("run-1", "one", "01", *calls), run("run-2", "two", "02")],
        confirmations=[asked("c", "approved"), asked("d", "rejected")],
        effects=[effect("a", "charge"), effect("b", "transfer", "b"), effect("c", "grant"), effect("e", "charge")],
        messages={
            "conv": [
                {"role": "user", "text": "one"},
                {"role": "assistant", "text": "done: one"},
                {"role": "user", "text": "two"},
                {"role": "assistant", "text": "done: two"},
            ]
        },
        told=[told, refused],
        resolved=set(),
        ever_ambiguous={"e"},
        changed=set(),
        left={"open runs": 0},
        unexpected=[],
        audited=on_record(),
        audit_wrong=[],
    )


def _forget(facts: Facts, kind: str, outcome: str) -> None:
    """The first such row is missing."""
    facts.audited.remove(next(one for one in facts.audited if (one["kind"], one["outcome"]) == (kind, outcome)))


def _say_again(facts: Facts, kind: str, outcome: str) -> None:
    """The first such row is there twice."""
    facts.audited.append(next(one for one in facts.audited if (one["kind"], one["outcome"]) == (kind, outcome)))


def _calls(facts: Facts) -> dict[str, Json]:
    return {one["id"]: one for one in facts.calls()}


WRONG: dict[str, tuple[str, Callable[[Facts], object]]] = {
    "an error of ours": (
        "nobody_was_answered_by_an_error_of_ours",
        lambda facts: facts.unexpected.append("GET /v1/runs: 500"),
    ),
    "a run that is gone": ("no_run_is_lost", lambda facts: facts.accepted.append("run-3")),
    "a run without an answer": ("no_run_is_lost", lambda facts: facts.runs[0].update(degraded=True)),
    "a reply given twice": (
        "no_reply_is_given_twice_or_out_of_order",
        lambda facts: facts.messages["conv"].append({"role": "assistant", "text": "done: two"}),
    ),
    "runs out of order": (
        "no_reply_is_given_twice_or_out_of_order",
        lambda facts: facts.runs[0].update(completed_at="03"),
    ),
    "an effect that happened twice": (
        "nothing_that_cannot_be_repeated_happened_twice",
        lambda facts: facts.effects.append(effect("a", "charge")),
    ),
    "another key for a repeat": (
        "every_keyed_effect_happened_once_by_key",
        lambda facts: facts.effects.append(effect("b", "transfer", "other")),
    ),
    "a keyed effect that is missing": (
        "every_keyed_effect_happened_once_by_key",
        lambda facts: facts.effects.pop(1),
    ),
    "success without an effect": ("what_is_said_of_an_effect_is_so", lambda facts: facts.effects.pop(0)),
    "an effect that is shown as failed": (
        "what_is_said_of_an_effect_is_so",
        lambda facts: _calls(facts)["e"].update(status="failed"),
    ),
    "a second dispatch that nobody allowed": (
        "every_lost_answer_was_seen_as_unknown",
        lambda facts: _calls(facts)["a"].update(attempts=2),
    ),
    "what was rejected ran": (
        "nothing_ran_without_an_accepted_approval",
        lambda facts: facts.effects.append(effect("d", "grant")),
    ),
    "what was approved did not run": (
        "nothing_ran_without_an_accepted_approval",
        lambda facts: _calls(facts)["c"].update(status="denied"),
    ),
    "other arguments ran": (
        "nothing_ran_without_an_accepted_approval",
        lambda facts: facts.effects[2].update(amount=1_000_000),
    ),
    "what was changed ran": (
        "nothing_ran_without_an_accepted_approval",
        lambda facts: facts.changed.add("c"),
    ),
    "somebody was told otherwise": (
        "nobody_was_told_otherwise",
        lambda facts: facts.told[0].update(stands="rejected"),
    ),
    "two decisions were accepted": (
        "nobody_was_told_otherwise",
        lambda facts: facts.told[1].update(status=200, stands="approved"),
    ),
    "an effect without an intent": (
        "every_effect_has_one_intent_and_one_outcome_on_record",
        lambda facts: _forget(facts, "tool_call", "dispatched"),
    ),
    "an effect without an outcome": (
        "every_effect_has_one_intent_and_one_outcome_on_record",
        lambda facts: _forget(facts, "tool_call", "succeeded"),
    ),
    "a dispatch of which nothing is said": (
        "every_effect_has_one_intent_and_one_outcome_on_record",
        lambda facts: _forget(facts, "tool_call", "superseded"),
    ),
    "an effect with two outcomes": (
        "every_effect_has_one_intent_and_one_outcome_on_record",
        lambda facts: _say_again(facts, "tool_call", "succeeded"),
    ),
    "a decision that is not on record": (
        "every_decision_is_on_record_once",
        lambda facts: _forget(facts, "confirmation", "approved"),
    ),
    "a decision that is on record twice": (
        "every_decision_is_on_record_once",
        lambda facts: _say_again(facts, "confirmation", "rejected"),
    ),
    "a question that is not on record": (
        "every_decision_is_on_record_once",
        lambda facts: _forget(facts, "confirmation", "pending"),
    ),
    "a message that is not on record": (
        "every_run_is_on_record_from_its_message_to_its_end",
        lambda facts: _forget(facts, "message", "accepted"),
    ),
    "an end that is not on record": (
        "every_run_is_on_record_from_its_message_to_its_end",
        lambda facts: _forget(facts, "run", "completed"),
    ),
    "a chain that does not hold": ("the_audit_log_holds", lambda facts: facts.audit_wrong.append("entry 7")),
    "a run is open": ("nothing_is_left_between_states", lambda facts: facts.left.update({"open runs": 1})),
    "a call is between states": (
        "nothing_is_left_between_states",
        lambda facts: _calls(facts)["a"].update(status="dispatched"),
    ),
}


def test_nothing_is_wrong_with_facts_that_are_right(facts: Facts) -> None:
    assert wrong_in(facts) == []


@pytest.mark.parametrize("what", WRONG)
def test_a_check_goes_red(facts: Facts, what: str) -> None:
    check, spoil = WRONG[what]
    spoiled = copy.deepcopy(facts)
    spoil(spoiled)
    assert {wrong.partition(":")[0] for wrong in wrong_in(spoiled)} >= {check}


def test_every_check_has_been_seen_red() -> None:
    assert {check for check, _ in WRONG.values()} == {check.__name__ for check in CHECKS}
