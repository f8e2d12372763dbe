"""Taking a conversation's turn, and giving it back with a reply."""

from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio import activity

from activities.catalogue import AgentCatalogue
from holdfast.domain.events import MessageCompleted
from holdfast.domain.ids import new_message_id
from holdfast.domain.permissions import WHOLE_TENANT
from holdfast.domain.runs import OPEN, RunStatus
from holdfast.domain.steps import Ending, Finish, RunRef, Turn, TurnPassed
from holdfast.services.confirmation_endings import withdraw
from holdfast.services.runs import TERMINATED, end_lost
from holdfast.store import audit, messages, outbox, runs, steps, turns
from holdfast.store.engine import Database
from holdfast.store.turns import Ended
from holdfast.temporal.client import MessageWorkflows

#: What the user reads when a run can't end as it should. Polite, true, and without an inside view.
_SMALLER = "Please ask for a smaller part of it."
_APOLOGIES = {
    Ending.REPLIED: "I'm sorry, I found nothing to say to that. Please try to put it differently.",
    Ending.MODELS_EXHAUSTED: "I'm sorry, I can't answer right now. Please try again in a few minutes.",
    Ending.OUT_OF_STEPS: f"I'm sorry, this took more steps than I may take. {_SMALLER}",
    Ending.NOT_CONFIRMED: "I'm sorry, nobody confirmed in time what this needed, so I stopped.",
    Ending.OUT_OF_TIME: f"I'm sorry, this took longer than I may take, so I stopped. {_SMALLER}",
    Ending.OUT_OF_BUDGET: f"I'm sorry, this cost more than I may spend, so I stopped. {_SMALLER}",
    Ending.UNEXPECTED_ERROR: "I'm sorry, something went wrong on our side, and this message could not be handled.",
}

#: What `run.error` says where the ending's own name would mislead.
_ERRORS = {Ending.REPLIED: "empty_answer"}

_STATUS = {
    Ending.REPLIED: RunStatus.COMPLETED,
    Ending.MODELS_EXHAUSTED: RunStatus.COMPLETED,
    Ending.OUT_OF_STEPS: RunStatus.COMPLETED,
    Ending.UNEXPECTED_ERROR: RunStatus.FAILED,
    Ending.CANCELLED: RunStatus.CANCELLED,
    Ending.NOT_CONFIRMED: RunStatus.CANCELLED,
    Ending.OUT_OF_TIME: RunStatus.COMPLETED,
    Ending.OUT_OF_BUDGET: RunStatus.COMPLETED,
    Ending.HANDED_OVER: RunStatus.COMPLETED,
}

#: Endings at which something may still wait for a person.
_EARLY = (Ending.UNEXPECTED_ERROR, Ending.CANCELLED, Ending.NOT_CONFIRMED, Ending.OUT_OF_TIME)


class TurnActivities:
    """The turn: see `holdfast.store.turns` for its rule."""

    def __init__(self, database: Database, agents: AgentCatalogue, workflows: MessageWorkflows) -> None:
        self._database = database
        self._agents = agents
        self._workflows = workflows

    @activity.defn
    async def begin_turn(self, run: RunRef) -> Turn:
        """Take the turn, if it is this run's; and take note that the workflow has started."""
        async with self._database.tenant(run.tenant_id) as connection:
            taken = await turns.take(connection, run.tenant_id, run.run_id)
            if taken is None or taken.has_ended:
                await outbox.heard_start(connection, run.tenant_id, run.run_id)
            if taken is None:
                return Turn(taken=False)
            if taken.has_ended:
                return Turn(taken=True, ended_before=True)
            if taken.is_cancelled:
                return Turn(taken=True, is_cancelled=True)
            agent = await self._agents.get(connection, run.tenant_id, taken.agent, taken.agent_version)
        limits = agent.limits
        return Turn(
            taken=True,
            max_steps=limits.max_steps,
            model=agent.model,
            timeout_s=limits.run_timeout.total_seconds(),
        )

    @activity.defn
    async def reclaim_turn(self, run: RunRef) -> None:
        """End each run in front of this one whose workflow does not run any more."""
        async with self._database.tenant(run.tenant_id) as connection:
            in_front = await turns.open_before(connection, run.tenant_id, run.run_id)
        for other in in_front:
            if not await self._workflows.is_open(other.workflow_id):
                async with self._database.tenant(run.tenant_id) as connection:
                    await end_lost(connection, run.tenant_id, other.run_id, TERMINATED)

    @activity.defn
    async def finish_turn(self, finish: Finish) -> TurnPassed:
        """Store the reply, end the run and free the turn, in one transaction; done again, it changes nothing."""
        status = _STATUS[finish.ending]
        async with self._database.tenant(finish.tenant_id) as connection:
            has_ended = False
            if finish.ending in _EARLY:
                await turns.lock(connection, finish.tenant_id, finish.run_id)
                has_ended = await runs.status_of(connection, finish.tenant_id, finish.run_id, WHOLE_TENANT) not in OPEN
                await withdraw(connection, finish.tenant_id, finish.run_id)
            said = await _said(connection, finish)
            reply = said or _APOLOGIES.get(finish.ending)
            # One that was ended meanwhile, by somebody who did not wait for it, has said its last.
            reply_id = None if reply is None or has_ended else await _store_reply(connection, finish, reply)
            as_it_should = bool(said) or finish.ending is Ending.HANDED_OVER
            ended = Ended(
                status,
                degraded=not as_it_should and status is RunStatus.COMPLETED,
                error=None if as_it_should else _ERRORS.get(finish.ending, finish.ending.value),
            )
            # What a model said was told with its step.
            apology = [] if said or reply is None else [MessageCompleted(None, reply)]
            following = await turns.end(connection, finish.tenant_id, finish.run_id, ended, *apology, reply_id=reply_id)
        return TurnPassed(next_workflow_id=following)


async def _store_reply(connection: AsyncConnection, finish: Finish, reply: str) -> str | None:
    """None: it has one."""
    message_id = new_message_id()
    if not await messages.store_reply(connection, finish.tenant_id, finish.run_id, message_id, reply):
        return None
    entry = audit.Entry(
        kind="message", outcome="replied", run_id=finish.run_id, subject_id=message_id, content={"text": reply}
    )
    await audit.append(connection, finish.tenant_id, entry)
    return message_id


async def _said(connection: AsyncConnection, finish: Finish) -> str:
    """The model's own last words; empty when the run ended without any."""
    if finish.ending is not Ending.REPLIED:
        return ""
    last = await steps.find(connection, finish.tenant_id, finish.run_id, finish.steps)
    return last.text.strip() and last.text if last else ""
