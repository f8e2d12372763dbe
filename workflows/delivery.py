"""DeliveryWorkflow: one event to one receiver.

All there is to decide is whether to try again and when, and the activity that has just tried knows best. So the server
keeps the time between two attempts, and the history has the same few events after a day of attempts as after one.
"""

from holdfast.domain.steps import DeliveryRef
from temporalio import workflow

from workflows import names, stubs


@workflow.defn(name=names.DELIVERY_WORKFLOW)
class DeliveryWorkflow:
    """Settles one delivery. Its id is `{tenant}:{kind}:{delivery}`, with a number behind it after a replay."""

    @workflow.run
    async def run(self, delivery: DeliveryRef) -> str:
        """Answers with what became of it."""
        outcome = await stubs.deliver(delivery)
        return outcome.status or "not its own any more"
