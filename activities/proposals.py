"""From what a model asked for to a line in the ledger: is there such a tool, do the arguments fit, what is the policy?

All of it is settled before any person is asked: nobody confirms a call that could not run.
"""

from dataclasses import dataclass

from holdfast.domain.agents import AgentSpec
from holdfast.domain.confirmations import arguments_digest
from holdfast.domain.ids import new_tool_call_id
from holdfast.domain.messages import RequestedToolCall
from holdfast.domain.policy import Ruling, Verdict, rule_on
from holdfast.domain.steps import ModelStep, NextAct, ProposedCall
from holdfast.domain.storable import storable
from holdfast.domain.tools import Effect, Idempotency, ToolCall, ToolCallStatus
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

_ACT = {ToolCallStatus.PROPOSED: NextAct.CONFIRM, ToolCallStatus.APPROVED: NextAct.EXECUTE}


def propose(
    step: ModelStep, agent: AgentSpec, tools: ToolRegistry, requested: tuple[RequestedToolCall, ...]
) -> list[Proposal]:
    """One proposal for each call that the model asked for, in its order."""
    return [_propose(step, agent, tools, call, position) for position, call in enumerate(requested)]


def next_acts(calls: list[ToolCall], tools: ToolRegistry) -> list[ProposedCall]:
    """What the workflow does with the calls of a step."""
    return [
        ProposedCall(
            tool_call_id=call.tool_call_id,
            tool=call.tool,
            act=_ACT.get(call.status, NextAct.SKIP),
            timeout_s=tool.declaration.timeout_s if (tool := tools.get(call.tool)) else 0.0,
            only_reads=call.effect is Effect.READ,
        )
        for call in calls
    ]


@dataclass(frozen=True)
class _Judged:
    status: ToolCallStatus
    rule: str
    arguments: dict[str, object] | None = None
    error: str | None = None


def _propose(
    step: ModelStep, agent: AgentSpec, tools: ToolRegistry, call: RequestedToolCall, position: int
) -> Proposal:
    tool = tools.get(call.tool)
    judged = _judge(step, rule_on(agent, call.tool), tool, call, position)
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
        effect=tool.declaration.effect if tool else Effect.IRREVERSIBLE,
        idempotency=tool.idempotency if tool else Idempotency.NONE,
        rule=judged.rule,
        error=judged.error,
    )


def _judge(step: ModelStep, ruling: Ruling, tool: Tool | None, call: RequestedToolCall, position: int) -> _Judged:
    if tool is None:
        return _Judged(ToolCallStatus.DENIED, "unknown tool", error=f"There is no tool {storable(call.tool, 200)!r}.")
    if ruling.verdict is Verdict.DENY:
        return _Judged(ToolCallStatus.DENIED, ruling.rule, error="The policy forbids this call. Do not repeat it.")
    if step.last or position >= MAX_CALLS_A_STEP:
        return _Judged(ToolCallStatus.DENIED, "limit", error="No further call is possible here. It was not run.")
    try:
        arguments = tool.parse(call.arguments)
    except ArgumentsRefused as refused:
        return _Judged(ToolCallStatus.FAILED, ruling.rule, error=storable(str(refused), MAX_ERROR_CHARACTERS))
    return _Judged(_STATUS[ruling.verdict], ruling.rule, arguments=arguments)


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
