"""The policy: what an agent may do by itself, what a person must confirm, what is forbidden."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from fnmatch import fnmatchcase

from holdfast.domain.agents import AgentSpec


class Verdict(StrEnum):
    """What the policy says of a call."""

    ALLOW = "allow"
    CONFIRM = "confirm"
    DENY = "deny"


@dataclass(frozen=True)
class Ruling:
    """A verdict and why: `rule` quotes the line of the configuration that decided."""

    verdict: Verdict
    rule: str
    deadline: timedelta
    on_deadline: str


_STRICTEST_FIRST = (Verdict.DENY, Verdict.CONFIRM, Verdict.ALLOW)


def rule_on(agent: AgentSpec, tool: str) -> Ruling:
    """What `agent` may do with `tool`. Deny beats confirm beats allow; a tool that no rule names is denied."""
    matching = [rule for rule in agent.tools if fnmatchcase(tool, rule.pattern)]
    for verdict in _STRICTEST_FIRST:
        for rule in matching:
            if rule.verdict == verdict:
                return Ruling(
                    verdict=verdict,
                    rule=f"{rule.pattern}: {rule.verdict}",
                    deadline=rule.deadline or agent.confirmation.deadline,
                    on_deadline=rule.on_deadline or agent.confirmation.on_deadline,
                )
    return Ruling(Verdict.DENY, f"no rule of {agent.name} names {tool}", agent.confirmation.deadline, "reject")
