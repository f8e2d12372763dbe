"""The policy: what an agent may do by itself, what a person must confirm, what is forbidden."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from holdfast.domain.agents import AgentSpec, ConfirmationDefaults, ToolRule
from holdfast.domain.expressions import holds
from holdfast.domain.tools import Declaration


class Verdict(StrEnum):
    """What the policy says of a call."""

    ALLOW = "allow"
    CONFIRM = "confirm"
    DENY = "deny"


@dataclass(frozen=True)
class Ruling:
    """A verdict and why: `rule` quotes what decided in the configuration; `asking` says how a person is asked."""

    verdict: Verdict
    rule: str
    asking: ConfirmationDefaults


_STRICTEST_FIRST = (Verdict.DENY, Verdict.CONFIRM, Verdict.ALLOW)


def rule_on(agent: AgentSpec, tool: str, declared: Declaration, arguments: dict[str, Any]) -> Ruling:
    """What `agent` may do with `tool` and these arguments. Deny beats confirm beats allow.

    A tool that no rule names is denied. One whose author wants every call confirmed is, unless a rule says explicitly
    that it need not be.
    """
    judged = [(rule, _verdict(rule, arguments)) for rule in _matching(agent, tool)]
    for verdict in _STRICTEST_FIRST:
        for rule, its_verdict in judged:
            if its_verdict is not verdict:
                continue
            asking = agent.asking(rule)
            if verdict is Verdict.ALLOW and declared.confirm == "always" and not rule.is_explicit:
                return Ruling(Verdict.CONFIRM, f"{tool} declares: confirm always", asking)
            return Ruling(verdict, _quoted(rule), asking)
    return Ruling(Verdict.DENY, f"no rule of {agent.name} names {tool}", agent.confirmation)


def may_offer(agent: AgentSpec, tool: str) -> bool:
    """Whether the model is told of a tool: some rule names it, and none denies it."""
    verdicts = {rule.verdict for rule in _matching(agent, tool)}
    return bool(verdicts) and Verdict.DENY not in verdicts


def declared_by_policy(agent: AgentSpec, tool: str) -> Declaration:
    """What an agent's rules declare of a tool, the first that says anything first."""
    rules = _matching(agent, tool)

    def first(name: str) -> Any:
        return next((value for rule in rules if (value := getattr(rule, name)) is not None), None)

    timeout: timedelta | None = first("timeout")
    return Declaration(
        effect=first("effect"),
        idempotency=first("idempotency"),
        timeout_s=None if timeout is None else timeout.total_seconds(),
        attempts=first("attempts"),
    )


def _matching(agent: AgentSpec, tool: str) -> list[ToolRule]:
    return [rule for rule in agent.tools if fnmatchcase(tool, rule.pattern)]


def _verdict(rule: ToolRule, arguments: dict[str, Any]) -> Verdict:
    if rule.when is not None and not holds(rule.when, arguments):
        return Verdict.ALLOW
    return Verdict(rule.verdict)


def _quoted(rule: ToolRule) -> str:
    return f"{rule.pattern}: {rule.verdict}" + (f" when {rule.when}" if rule.when else "")
