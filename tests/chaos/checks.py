"""What must be true after the chaos. Each check answers with what is wrong; `test_checks.py` sees each go red."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

#: Tools that can't be repeated, and those that one key makes harmless to repeat.
NOT_REPEATABLE = ("charge", "grant", "ship")
KEYED = ("transfer", "pay_out")
CONFIRMED = ("grant", "pay_out")

#: Where a call may stand when all is over.
_SETTLED = ("succeeded", "failed", "ambiguous", "rejected", "expired", "withdrawn", "denied")


@dataclass(frozen=True)
class Facts:
    """What is known when all is over.

    `accepted`: the run ids that callers were given. `runs` and `confirmations`: as the API shows them. `effects`: the
    recorder's calls. `messages`: of each conversation, in order. `told`: what deciders were answered, as dicts.
    `resolved`: ids of calls whose outcome a person settled. `ever_ambiguous`: of calls that were unknown at some time.
    `changed`: of calls whose arguments somebody changed after they were approved. `left`: rows that should not be
    there, by what they are. `unexpected`: answers that no caller should ever be given, such as 500. `audited`: the
    entries of the audit log, in order; `audit_wrong`: what verifying it finds.
    """

    accepted: list[str]
    runs: list[Json]
    confirmations: list[Json]
    effects: list[Json]
    messages: dict[str, list[Json]]
    told: list[Json]
    resolved: set[str]
    ever_ambiguous: set[str]
    changed: set[str]
    left: dict[str, int]
    unexpected: list[str]
    audited: list[Json]
    audit_wrong: list[str]

    def calls(self, *tools: str) -> Iterator[Json]:
        """The tool calls of some tools, or of all."""
        for run in self.runs:
            yield from (call for call in run["tool_calls"] if not tools or call["tool"] in tools)

    def entries(self, kind: str, subject_id: str) -> list[Json]:
        """What is on record of one thing."""
        return [one for one in self.audited if (one["kind"], one["subject_id"]) == (kind, subject_id)]

    def applied(self, marker: str) -> list[Json]:
        """The effects with a marker that were really applied."""
        return [effect for effect in self.effects if effect["marker"] == marker and effect["applied"]]


def no_run_is_lost(facts: Facts) -> list[str]:
    """Each message that was accepted has a run that completed, with a reply."""
    runs = {run["id"]: run for run in facts.runs}
    wrong = [f"{run_id} was accepted and is not there" for run_id in facts.accepted if run_id not in runs]
    for run in facts.runs:
        if run["status"] != "completed" or run["reply"] is None or run["degraded"]:
            wrong.append(f"{run['id']} has {run['status']} with {run['error']!r}, and the reply {run['reply']!r}")
    return wrong


def no_reply_is_given_twice_or_out_of_order(facts: Facts) -> list[str]:
    """Each conversation is answered in the order in which its messages were accepted, each message once."""
    wrong = []
    for conversation, messages in facts.messages.items():
        asked = [message["text"] for message in messages if message["role"] == "user"]
        replies = [message["text"] for message in messages if message["role"] == "assistant"]
        if replies != [f"done: {text}" for text in asked]:
            wrong.append(f"{conversation}: asked {asked}, replied {replies}")
    by_conversation: dict[str, list[Json]] = defaultdict(list)
    for run in sorted(facts.runs, key=lambda run: str(run["id"])):
        by_conversation[run["conversation_id"]].append(run)
    for conversation, runs in by_conversation.items():
        ends = [run["completed_at"] for run in runs]
        if ends != sorted(ends):
            wrong.append(f"{conversation}: its runs ended out of order")
    return wrong


def nothing_that_cannot_be_repeated_happened_twice(facts: Facts) -> list[str]:
    """At the recorder: at most one call for each marker."""
    counted = Counter(effect["marker"] for effect in facts.effects if effect["tool"] in NOT_REPEATABLE)
    return [f"{marker} happened {count} times" for marker, count in counted.items() if count > 1]


def every_keyed_effect_happened_once_by_key(facts: Facts) -> list[str]:
    """Each call that succeeded was applied once, under one key: its own id."""
    wrong = []
    for call in facts.calls(*KEYED):
        marker = call["arguments"]["marker"]
        keys = {effect["key"] for effect in facts.effects if effect["marker"] == marker}
        applied = len(facts.applied(marker))
        expected = 1 if call["status"] == "succeeded" else applied if call["status"] == "ambiguous" else 0
        if keys - {call["id"]} or applied != expected:
            wrong.append(f"{marker}: {call['status']}, applied {applied} times under {sorted(keys)}")
    return wrong


def what_is_said_of_an_effect_is_so(facts: Facts) -> list[str]:
    """What succeeded happened; what failed, or was never run, did not; and what nobody can know is called ambiguous."""
    wrong = []
    for call in facts.calls(*NOT_REPEATABLE):
        happened = bool(facts.applied(call["arguments"]["marker"]))
        status = call["status"]
        if status == "succeeded" and not happened:
            wrong.append(f"{call['id']} is said to have succeeded, and did not happen")
        if status not in ("succeeded", "ambiguous") and happened:
            wrong.append(f"{call['id']} happened, and is said to have {status}")
    return wrong


def every_lost_answer_was_seen_as_unknown(facts: Facts) -> list[str]:
    """A call of a tool without key or probe that was handed out twice was unknown in between, and a person said so."""
    return [
        f"{call['id']} was handed out {call['attempts']} times without a person's word"
        for call in facts.calls("charge", "grant")
        if call["attempts"] > 1 and call["id"] not in facts.resolved
    ]


def nothing_ran_without_an_accepted_approval(facts: Facts) -> list[str]:
    """What happened of what a person confirms was approved, with the arguments they saw; what was approved happened."""
    wrong = []
    by_call = {one["tool_call_id"]: one for one in facts.confirmations if one["kind"] == "call"}
    for call in facts.calls(*CONFIRMED):
        asked = by_call.get(call["id"])
        happened = [effect for effect in facts.effects if effect["marker"] == call["arguments"]["marker"]]
        approved = asked is not None and asked["status"] == "approved"
        if happened and not approved:
            wrong.append(f"{call['id']} happened, and its confirmation is {asked and asked['status']}")
        if call["id"] in facts.changed:
            if happened or call["status"] != "denied":
                wrong.append(f"{call['id']} was changed after it was approved, and has {call['status']}")
        elif approved and call["status"] not in ("succeeded", "ambiguous") and call["id"] not in facts.resolved:
            wrong.append(f"{call['id']} was approved, and has {call['status']}: {call['error']}")
        if asked and any(effect.get("amount") != asked["arguments"].get("amount") for effect in happened):
            wrong.append(f"{call['id']} ran with other arguments than were approved")
    return wrong


def nobody_was_told_otherwise(facts: Facts) -> list[str]:
    """Whoever was told 200 was told what stands; and of each confirmation one decision at most was accepted."""
    wrong = []
    stands = {one["id"]: one for one in facts.confirmations}
    accepted: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for told in facts.told:
        if told["status"] == 200:
            accepted[told["confirmation_id"]].add((told["person"], told["decision"]))
            if told["stands"] != stands[told["confirmation_id"]]["status"]:
                wrong.append(f"{told} does not stand: {stands[told['confirmation_id']]['status']}")
    return wrong + [f"{one}: accepted {sorted(both)}" for one, both in accepted.items() if len(both) > 1]


def nothing_is_left_between_states(facts: Facts) -> list[str]:
    """No run open, no turn held, no word unsaid, no call between the states."""
    wrong = [f"{count} {what}" for what, count in facts.left.items() if count]
    return wrong + [f"{call['id']} is {call['status']}" for call in facts.calls() if call["status"] not in _SETTLED]


def nobody_was_answered_by_an_error_of_ours(facts: Facts) -> list[str]:
    """What can't be done now is said to be so (503); an error that nobody foresaw (500) is a defect."""
    return facts.unexpected


def every_effect_has_one_intent_and_one_outcome_on_record(facts: Facts) -> list[str]:
    """Each time a call was handed out is on record before, and once what came of it; what happened was handed out."""
    wrong = []
    for call in facts.calls():
        of_call = facts.entries("tool_call", call["id"])
        for attempt in range(1, call["attempts"] + 1):
            told = [one["outcome"] for one in of_call if one["attempt"] == attempt]
            if not _ONE_ATTEMPT.fullmatch(" ".join(told)):
                wrong.append(f"{call['id']}, attempt {attempt}: {told}")
        if call["attempts"] and of_call and of_call[-1]["outcome"] != call["status"]:
            wrong.append(f"{call['id']} has {call['status']}, and {of_call[-1]['outcome']} is on record")
        if any((one["attempt"] or 0) > call["attempts"] for one in of_call):
            wrong.append(f"{call['id']} was handed out {call['attempts']} times, and more is on record")
    intents = Counter(one["subject_id"] for one in facts.audited if one["outcome"] == "dispatched")
    by_marker = {call["arguments"]["marker"]: call["id"] for call in facts.calls() if call["arguments"]}
    for marker, count in Counter(effect["marker"] for effect in facts.effects).items():
        if count > intents[by_marker.get(marker)]:
            wrong.append(f"{marker} happened {count} times, with {intents[by_marker.get(marker)]} intents on record")
    return wrong


# What nobody knew is settled once, by a person or by its own late result; or is to run again, which may not come about.
_ONE_ATTEMPT = re.compile(
    "dispatched (succeeded|failed|superseded|ambiguous( approved ambiguous)*( approved| succeeded| failed)?)"
)

_UNDECIDED = ("pending", "reminded", "escalated")


def every_decision_is_on_record_once(facts: Facts) -> list[str]:
    """Of each confirmation, that it was asked; and once how it ended, by whom."""
    wrong = []
    for asked in facts.confirmations:
        of_one = facts.entries("confirmation", asked["id"])
        requests = [one for one in of_one if one["outcome"] == "pending"]
        ends = [(one["outcome"], one["person"]) for one in of_one if one["outcome"] not in _UNDECIDED]
        if len(requests) != 1 or ends != [(asked["status"], asked["decided_by"])]:
            wrong.append(f"{asked['id']} was {asked['status']} by {asked['decided_by']}: {len(requests)}, {ends}")
    return wrong


def every_run_is_on_record_from_its_message_to_its_end(facts: Facts) -> list[str]:
    """Of each run one message, one reply, one end."""
    wrong = []
    for run in facts.runs:
        of_run = [f"{one['kind']} {one['outcome']}" for one in facts.audited if one["run_id"] == run["id"]]
        counts = {what: of_run.count(what) for what in ("message accepted", "message replied", f"run {run['status']}")}
        if set(counts.values()) != {1}:
            wrong.append(f"{run['id']}: {counts}")
    return wrong


def the_audit_log_holds(facts: Facts) -> list[str]:
    """Every tenant's chain verifies, and so does what it committed to."""
    return facts.audit_wrong


CHECKS = (
    nobody_was_answered_by_an_error_of_ours,
    no_run_is_lost,
    no_reply_is_given_twice_or_out_of_order,
    nothing_that_cannot_be_repeated_happened_twice,
    every_keyed_effect_happened_once_by_key,
    what_is_said_of_an_effect_is_so,
    every_lost_answer_was_seen_as_unknown,
    nothing_ran_without_an_accepted_approval,
    nobody_was_told_otherwise,
    nothing_is_left_between_states,
    every_effect_has_one_intent_and_one_outcome_on_record,
    every_decision_is_on_record_once,
    every_run_is_on_record_from_its_message_to_its_end,
    the_audit_log_holds,
)


def wrong_in(facts: Facts) -> list[str]:
    """Everything that is wrong, each with the name of its check."""
    return [f"{check.__name__}: {what}" for check in CHECKS for what in check(facts)]
