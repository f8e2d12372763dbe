"""Who wants to be told of which events. What is told to them are the deliveries, which a trigger on `events` adds."""

from sqlalchemy import delete, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.domain.deliveries import Subscription
from holdfast.store.tables.telling import subscriptions


async def put(connection: AsyncConnection, tenant_id: str, subscription: Subscription) -> None:
    """Subscribe a target, in place of what it subscribed to before. Told are events that are logged from then on."""
    values = {
        "kind": subscription.kind,
        "types": list(subscription.types),
        "conversation_id": subscription.conversation_id,
        "is_active": subscription.is_active,
    }
    adding = insert(subscriptions).values(tenant_id=tenant_id, target_id=subscription.target_id, **values)
    await connection.execute(adding.on_conflict_do_update(index_elements=["tenant_id", "target_id"], set_=values))


async def pause(connection: AsyncConnection, tenant_id: str, target_id: str) -> None:
    """Add no more deliveries to a target, for now."""
    await connection.execute(
        update(subscriptions)
        .where(subscriptions.c.tenant_id == tenant_id, subscriptions.c.target_id == target_id)
        .values(is_active=False)
    )


async def remove(connection: AsyncConnection, tenant_id: str, target_id: str) -> None:
    """End a target's subscription; see `deliveries.remove_of` for what it was to be told."""
    await connection.execute(
        delete(subscriptions).where(subscriptions.c.tenant_id == tenant_id, subscriptions.c.target_id == target_id)
    )
