"""The relay: says again to Temporal what was committed here and never heard there.

A message is accepted, and a decision stored, by a commit; the word to Temporal follows, and may be lost with the
process or with Temporal. The relay reads the outbox of every tenant (ids only) and repeats each word until it is heard.

The word about a delivery is the relay's alone: it is woken for it, and says it again now and then until the delivery is
settled.
"""

import asyncio
import logging
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from holdfast.domain.errors import HoldfastError
from holdfast.domain.permissions import WHOLE_TENANT
from holdfast.domain.runs import RunToStart
from holdfast.domain.steps import DeliveryRef
from holdfast.services.looking import Looking
from holdfast.services.runs import TERMINATED, end_lost
from holdfast.store import outbox, runs
from holdfast.store.engine import Database
from holdfast.store.outbox import Word
from holdfast.streaming.run_changes import RunChanges, Watch
from holdfast.temporal.client import CALL, DeliveryWorkflows, MessageWorkflows

log = logging.getLogger(__name__)

#: How long a word belongs to the relay that is saying it: longer than Temporal is waited for.
_CLAIMED_FOR = CALL + timedelta(seconds=1)

#: How long to rest between two looks, in seconds.
_REST_S = 1.0

#: How many words are said at once.
_BATCH = 50

#: When to see again whether a delivery that is not settled still has a workflow.
_DELIVERY_AGAIN = timedelta(hours=1)


class Relay(Looking):
    """Runs in every API process; several of them share the work, since each word is claimed before it is said."""

    def __init__(
        self, database: Database, workflows: MessageWorkflows, deliveries: DeliveryWorkflows, changes: RunChanges
    ) -> None:
        super().__init__("relay")
        self._database = database
        self._workflows = workflows
        self._deliveries = deliveries
        self._changes = changes
        self._watch = Watch()

    async def relay_due(self) -> int:
        """Say one batch of words that are due; answers with how many Temporal acknowledged."""
        async with self._database.relay() as connection:
            words = await outbox.claim(connection, _CLAIMED_FOR, _BATCH)
        heard = await asyncio.gather(*(self._say(word) for word in words))
        acknowledged = [word for word, is_heard in zip(words, heard, strict=True) if is_heard]
        if acknowledged:
            started = [word for word in acknowledged if word.kind == "deliver"]
            async with self._database.relay() as connection:
                await outbox.remove(connection, [word for word in acknowledged if word not in started])
                await outbox.repeat(connection, started, _DELIVERY_AGAIN)
        return len(acknowledged)

    async def _run(self) -> None:
        with self._changes.watching_outbox(self._watch):
            await super()._run()

    async def _look(self) -> None:
        self._watch.is_seen()
        while await self.relay_due() == _BATCH:
            continue

    async def _rest(self) -> None:
        await self._watch.changed(_REST_S)

    async def _say(self, word: Word) -> bool:
        try:
            match word.kind:
                case "start":
                    await self._start(word)
                case "cancel" | "decided" if await self._is_lost(word):
                    async with self._database.tenant(word.tenant_id) as connection:
                        await end_lost(connection, word.tenant_id, word.run_id, TERMINATED)
                case "cancel":
                    await self._workflows.cancel(word.workflow_id)
                case "deliver":
                    await self._deliveries.start(DeliveryRef(word.tenant_id, word.subject_id or "", word.workflow_id))
                case "freed":
                    await self._workflows.wake_freed(word.workflow_id)
                case _:
                    await self._workflows.wake_decided(word.workflow_id, word.subject_id or "")
        except HoldfastError as error:
            log.warning("the relay could not reach Temporal for run %s: %s", word.run_id, error)
            return False
        except SQLAlchemyError as error:
            # What is wrong with one word must not keep the others of its batch from being acknowledged.
            log.warning("the relay could not act on a word of run %s: %s", word.run_id, type(error).__name__)
            return False
        return True

    async def _is_lost(self, word: Word) -> bool:
        """Whether the run's workflow was terminated from outside: it hears nothing, and nobody else ends the run."""
        if await self._workflows.is_open(word.workflow_id):
            return False
        async with self._database.tenant(word.tenant_id) as connection:
            return not await outbox.waits_to_start(connection, word.tenant_id, word.run_id)

    async def _start(self, word: Word) -> None:
        async with self._database.tenant(word.tenant_id) as connection:
            run = await runs.find(connection, word.tenant_id, word.run_id, WHOLE_TENANT)
        if run is not None:
            await self._workflows.start(
                RunToStart(run.tenant_id, run.run_id, run.conversation_id, run.message_id, run.agent)
            )
