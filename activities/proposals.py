"""From what a model asked for to a line in the ledger: is there such a tool, do the arguments fit, what is the policy?

All of it is settled before any person is asked: nobody confirms a call that could not run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from holdfast.domain import client_tools
from holdfast.domain.agents import AgentSpec
from holdfast.domain.confirmations import arguments_digest
from holdfast.domain.ids import new_tool_call_id
from holdfast.domain.messages import RequestedToolCall
from holdfast.domain.policy import Verdict, declared_by_policy, may_offer, rule_on
from holdfast.domain.steps import ModelStep, NextAct, ProposedCall
from holdfast.domain.storable import storable
from holdfast.domain.tools import Declaration, Effect, Terms, ToolCall, ToolCallStatus, terms
from holdfast.store.tool_calls import Proposal
from holdfast.tools.registry import ArgumentsRefused, Tool, ToolRegistry
from holdfast.tools.run import MAX_ERROR_CHARACTERS, MAX_STORED_CHARACTERS

#: How many calls of one answer are taken; a model that asks for more is told so.
MAX_CALLS_A_STEP = 32

_STATUS = {
    Verdict.ALLOW: ToolCallStatus.APPROVED,
    Verdict.CONFIRM: ToolCallStatus.PROPOSED,
    Verdict.DENY: ToolCallStatus.DENIED,
}

# Most calls are new. Of a workflow that was reset, they are wherever they were: what waits for a person waits on.
_ACT = {
    ToolCallStatus.PROPOSED: NextAct.CONFIRM,
    ToolCallStatus.AWAITING_CONFIRMATION: NextAct.CONFIRM,
    ToolCallStatus.APPROVED: NextAct.EXECUTE,
    ToolCallStatus.DISPATCHED: NextAct.EXECUTE,
    ToolCallStatus.AMBIGUOUS: NextAct.EXECUTE,
}


def propose(
    step: ModelStep,
    agent: AgentSpec,
    tools: ToolRegistry,
    requested: tuple[RequestedToolCall, ...],
    calls_left: int,
    of_client: Mapping[str, Tool],
) -> list[Proposal]:
    """One proposal for each call that the model asked for, in its order; `calls_left` of them can be made.

    `of_client`: the tools that the client brought, none of which a rule of the agent is about.
    """
    most = 0 if step.last else min(calls_left, MAX_CALLS_A_STEP)
    return [
        _propose_of_client(step, tool, call, position, is_possible=position < most)
        if (tool := of_client.get(call.tool)) is not None
        else _propose(step, agent, tools, call, position, is_possible=position < most)
        for position, call in enumerate(requested)
    ]


def next_acts(calls: list[ToolCall]) -> list[ProposedCall]:
    """What the workflow does with the calls of a step."""
    return [
        ProposedCall(
            tool_call_id=call.tool_call_id,
            tool=call.tool,
            act=_act(call),
            timeout_s=call.terms.timeout_s * call.terms.attempts,
            only_reads=call.terms.effect is Effect.READ,
        )
        for call in calls
    ]


def _act(call: ToolCall) -> NextAct:
    if call.by_client:
        return NextAct.HAND_OVER if call.status is ToolCallStatus.APPROVED else NextAct.SKIP
    return _ACT.get(call.status, NextAct.SKIP)


@dataclass(frozen=True)
class _Judged:
    status: ToolCallStatus
    rule: str
    arguments: dict[str, object] | None = None
    error: str | None = None


def _propose(
    step: ModelStep,
    agent: AgentSpec,
    tools: ToolRegistry,
    call: RequestedToolCall,
    position: int,
    *,
    is_possible: bool,
) -> Proposal:
    tool = tools.get(call.tool)
    judged = _judge(agent, tool, call, is_possible=is_possible)
    return _proposal(step, tool, call, position, judged, _terms(agent, tool))


def _propose_of_client(
    step: ModelStep, tool: Tool, call: RequestedToolCall, position: int, *, is_possible: bool
) -> Proposal:
    judged = _judge_of_client(tool, call, is_possible=is_possible)
    return replace(_proposal(step, tool, call, position, judged, tool.terms()), by_client=True)


def _proposal(
    step: ModelStep, tool: Tool | None, call: RequestedToolCall, position: int, judged: _Judged, holding: Terms
) -> Proposal:
    tool_call_id = new_tool_call_id()
    return Proposal(
        tool_call_id=tool_call_id,
        run_id=step.run_id,
        step=step.step,
        position=position,
        tool=storable(call.tool, 200),
        arguments_raw=storable(call.arguments, MAX_STORED_CHARACTERS),
        arguments=judged.arguments,
        arguments_digest=_digest(step, tool_call_id, tool, judged),
        status=judged.status,
        effect=holding.effect,
        idempotency=holding.idempotency,
        timeout_s=holding.timeout_s,
        max_attempts=holding.attempts,
        rule=judged.rule,
        error=judged.error,
    )


def _judge(agent: AgentSpec, tool: Tool | None, call: RequestedToolCall, *, is_possible: bool) -> _Judged:
    if tool is None:
        return _Judged(ToolCallStatus.DENIED, "unknown tool", error=f"There is no tool {storable(call.tool, 200)!r}.")
    if not may_offer(agent, call.tool):
        rule = rule_on(agent, call.tool, tool.declaration, {}).rule
        return _Judged(ToolCallStatus.DENIED, rule, error="The policy forbids this call. Do not repeat it.")
    if not is_possible:
        return _AT_LIMIT
    try:
        arguments = tool.parse(call.arguments)
    except ArgumentsRefused as refused:
        return _refused(refused)
    ruling = rule_on(agent, call.tool, tool.declaration, arguments)
    return _Judged(_STATUS[ruling.verdict], ruling.rule, arguments=arguments)


def _judge_of_client(tool: Tool, call: RequestedToolCall, *, is_possible: bool) -> _Judged:
    if not is_possible:
        return _AT_LIMIT
    try:
        return _Judged(ToolCallStatus.APPROVED, client_tools.RULE, arguments=tool.parse(call.arguments))
    except ArgumentsRefused as refused:
        return _refused(refused)


_AT_LIMIT = _Judged(ToolCallStatus.DENIED, "limit", error="No further call is possible here. It was not run.")


def _refused(refused: ArgumentsRefused) -> _Judged:
    return _Judged(ToolCallStatus.FAILED, "arguments", error=storable(str(refused), MAX_ERROR_CHARACTERS))


def _terms(agent: AgentSpec, tool: Tool | None) -> Terms:
    if tool is None:
        return terms(Declaration(), Declaration(), takes_key=False)
    return tool.terms(declared_by_policy(agent, tool.name))


def _digest(step: ModelStep, tool_call_id: str, tool: Tool | None, judged: _Judged) -> str | None:
    if tool is None or judged.arguments is None:
        return None
    return arguments_digest(
        tenant_id=step.tenant_id,
        run_id=step.run_id,
        tool_call_id=tool_call_id,
        tool=tool.name,
        schema_digest=tool.schema_digest,
        arguments=judged.arguments,
    )
