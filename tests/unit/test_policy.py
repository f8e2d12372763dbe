"""Deny beats confirm beats allow, and what no rule names is denied."""

from datetime import timedelta
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.agents import ConfirmationDefaults, ToolRule
from holdfast.domain.policy import Ruling, Verdict, rule_on
from tests.unit.builders import agent

Word = Literal["allow", "confirm", "deny"]

words = st.sampled_from(["allow", "confirm", "deny"])
patterns = st.sampled_from(["refund_order", "refund_*", "*_order", "*", "refund_?rder", "lookup_order", "r*", "mcp__*"])
rules = st.lists(st.builds(ToolRule, pattern=patterns, verdict=words), max_size=8)
tools = st.sampled_from(["refund_order", "lookup_order", "mcp__github__search", "delete_account"])


def rule(pattern: str, verdict: Word, deadline: timedelta | None = None) -> ToolRule:
    return ToolRule(pattern=pattern, verdict=verdict, deadline=deadline)


def verdict_of(*given_rules: ToolRule, tool: str = "refund_order") -> Verdict:
    return rule_on(agent(*given_rules), tool).verdict


@given(st.data(), rules, tools)
def test_the_order_of_rules_does_not_matter(data: st.DataObject, given_rules: list[ToolRule], tool: str) -> None:
    shuffled = data.draw(st.permutations(given_rules))
    assert verdict_of(*given_rules, tool=tool) is verdict_of(*shuffled, tool=tool)


@given(rules, st.builds(ToolRule, pattern=patterns, verdict=st.sampled_from(["confirm", "deny"])), tools)
def test_a_further_restriction_never_allows_more(given_rules: list[ToolRule], further: ToolRule, tool: str) -> None:
    strictness = [Verdict.ALLOW, Verdict.CONFIRM, Verdict.DENY]
    before = rule_on(agent(*given_rules), tool)
    after = verdict_of(*given_rules, further, tool=tool)
    if before.rule.startswith("no rule"):
        assert after in (Verdict.DENY, Verdict.CONFIRM)
    else:
        assert strictness.index(after) >= strictness.index(before.verdict)


@pytest.mark.parametrize(
    ("given_words", "expected"),
    [
        (["allow"], Verdict.ALLOW),
        (["allow", "confirm"], Verdict.CONFIRM),
        (["allow", "deny"], Verdict.DENY),
        (["confirm", "deny"], Verdict.DENY),
        (["allow", "confirm", "deny"], Verdict.DENY),
    ],
)
def test_the_strictest_rule_wins(given_words: list[Word], expected: Verdict) -> None:
    assert verdict_of(*(rule("refund_*", word) for word in given_words)) is expected


@pytest.mark.parametrize(
    ("pattern", "tool", "matches"),
    [
        ("refund_order", "refund_order", True),
        ("refund_order", "refund_orders", False),
        ("refund_order", "REFUND_ORDER", False),
        ("mcp__github__*", "mcp__github__search", True),
        ("mcp__github__*", "mcp__gitlab__search", False),
        ("refund_?rder", "refund_order", True),
        ("*", "", True),
        ("*", "refund_order\ndelete", True),
        ("order", "refund_order", False),
    ],
)
def test_a_pattern_matches_whole_names(pattern: str, tool: str, matches: bool) -> None:
    assert (verdict_of(rule(pattern, "allow"), tool=tool) is Verdict.ALLOW) is matches


def test_what_no_rule_names_is_denied_and_the_ruling_says_so() -> None:
    defaults = ConfirmationDefaults(deadline=timedelta(minutes=3))
    ruling = rule_on(agent(rule("lookup_order", "allow"), confirmation=defaults), "refund_order")
    assert ruling == Ruling(
        Verdict.DENY, "no rule of support names refund_order", deadline=timedelta(minutes=3), on_deadline="reject"
    )


def test_the_ruling_quotes_the_line_that_decided() -> None:
    ruling = rule_on(agent(rule("*", "allow"), rule("refund_*", "confirm")), "refund_order")
    assert ruling.rule == "refund_*: confirm"


def test_a_rule_without_a_deadline_has_the_agents() -> None:
    defaults = ConfirmationDefaults(deadline=timedelta(minutes=3))
    hurried = agent(rule("refund_order", "confirm", timedelta(minutes=1)), rule("*", "confirm"), confirmation=defaults)
    assert rule_on(hurried, "refund_order").deadline == timedelta(minutes=1)
    assert rule_on(hurried, "lookup_order").deadline == timedelta(minutes=3)


def test_a_person_has_ten_minutes_unless_the_file_says_otherwise() -> None:
    assert rule_on(agent(rule("*", "confirm")), "refund_order").deadline == timedelta(minutes=10)
