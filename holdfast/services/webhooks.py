"""Webhooks of a tenant: made, changed, given another secret, deleted; and what they were told, to see and replay."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from holdfast.channels.receivers import Receivers
from holdfast.channels.webhook_secrets import new_secret, seal
from holdfast.domain.deliveries import DELIVERABLE, DeliveryRecord, DeliveryStatus, EventType, Subscription
from holdfast.domain.errors import Conflict, InvalidInput, NotFound, Unavailable
from holdfast.domain.ids import new_webhook_id
from holdfast.domain.permissions import Caller
from holdfast.secrecy.keyring import Keyring
from holdfast.store import audit, deliveries, subscriptions, webhooks
from holdfast.store.engine import Database
from holdfast.store.webhooks import Webhook
from holdfast.tools.http_rules import RequestRefused

#: Each event is told to all of them.
MAX_WEBHOOKS = 20

#: For how long an old secret may go on signing.
LONGEST_GRACE_PERIOD = timedelta(days=7)


@dataclass(frozen=True)
class Terms:
    """Where a webhook goes and what it is told. `types` empty: every type."""

    url: str
    types: tuple[EventType, ...] = ()
    is_enabled: bool = True

    def subscription(self, webhook_id: str) -> Subscription:
        types = tuple(kind for kind in DELIVERABLE if kind in self.types) or DELIVERABLE
        return Subscription(webhook_id, "webhook", types, is_active=self.is_enabled)


@dataclass(frozen=True)
class NewSecret:
    """A webhook whose secret was just made: the one time at which it is shown."""

    webhook: Webhook
    secret: str


class Webhooks:
    """Keeps the webhooks of tenants.

    Args:
        keyring: seals their secrets; None: none can be made.
        receivers: which addresses may be told.
    """

    def __init__(self, database: Database, keyring: Keyring | None, receivers: Receivers) -> None:
        self._database = database
        self._keyring = keyring
        self._receivers = receivers

    async def create(self, caller: Caller, terms: Terms) -> NewSecret:
        """Make a webhook. It is told of what happens from then on.

        Raises:
            InvalidInput: the URL may not be told.
            Conflict: the tenant has as many as it may.
            Unavailable: there is no key to seal its secret with.
        """
        self._check(terms.url)
        webhook_id, secret, tenant_id = new_webhook_id(), new_secret(), caller.tenant_id
        sealed = seal(self._sealing, tenant_id, webhook_id, secret)
        async with self._database.tenant(tenant_id) as connection:
            if await webhooks.count(connection, tenant_id) >= MAX_WEBHOOKS:
                raise Conflict(f"The tenant has {MAX_WEBHOOKS} webhooks, which is as many as it may have; delete one.")
            await webhooks.add(connection, tenant_id, webhook_id, terms.url, sealed, caller.person)
            await subscriptions.put(connection, tenant_id, terms.subscription(webhook_id))
            await _record(connection, caller, "created", webhook_id)
            return NewSecret(await _found(connection, tenant_id, webhook_id), secret)

    async def get(self, tenant_id: str, webhook_id: str) -> Webhook:
        """A webhook.

        Raises:
            NotFound: there is none.
        """
        async with self._database.tenant(tenant_id) as connection:
            return await _found(connection, tenant_id, webhook_id)

    async def page(self, tenant_id: str, *, after: str | None, limit: int) -> list[Webhook]:
        """Webhooks, newest first."""
        async with self._database.tenant(tenant_id) as connection:
            return await webhooks.page(connection, tenant_id, after=after, limit=limit)

    async def put(self, caller: Caller, webhook_id: str, terms: Terms) -> Webhook:
        """Change where a webhook goes and what it is told; enable or disable it.

        Raises:
            InvalidInput: the URL may not be told.
            NotFound: there is no such webhook.
        """
        self._check(terms.url)
        why = None if terms.is_enabled else "disabled by a person"
        async with self._database.tenant(caller.tenant_id) as connection:
            if not await webhooks.change(connection, caller.tenant_id, webhook_id, terms.url, why):
                raise NotFound("webhook", webhook_id)
            await subscriptions.put(connection, caller.tenant_id, terms.subscription(webhook_id))
            await _record(connection, caller, "changed", webhook_id)
            return await _found(connection, caller.tenant_id, webhook_id)

    async def rotate(self, caller: Caller, webhook_id: str, grace_period: timedelta) -> NewSecret:
        """Give a webhook another secret. Until the grace period ends, the one before signs too.

        Raises:
            InvalidInput: the grace period is too long.
            NotFound: there is no such webhook.
            Unavailable: there is no key to seal the secret with.
        """
        if not timedelta(0) <= grace_period <= LONGEST_GRACE_PERIOD:
            raise InvalidInput("grace_period", f"It may be {LONGEST_GRACE_PERIOD.days} days at most.")
        secret = new_secret()
        sealed = seal(self._sealing, caller.tenant_id, webhook_id, secret)
        async with self._database.tenant(caller.tenant_id) as connection:
            if not await webhooks.rotate(connection, caller.tenant_id, webhook_id, sealed, grace_period):
                raise NotFound("webhook", webhook_id)
            await _record(connection, caller, "rotated", webhook_id)
            return NewSecret(await _found(connection, caller.tenant_id, webhook_id), secret)

    async def remove(self, caller: Caller, webhook_id: str) -> None:
        """Delete a webhook, with what it was told and was to be told.

        Raises:
            NotFound: there is no such webhook.
        """
        async with self._database.tenant(caller.tenant_id) as connection:
            if not await webhooks.remove(connection, caller.tenant_id, webhook_id):
                raise NotFound("webhook", webhook_id)
            await subscriptions.remove(connection, caller.tenant_id, webhook_id)
            await deliveries.remove_of(connection, caller.tenant_id, webhook_id)
            await _record(connection, caller, "deleted", webhook_id)

    async def deliveries(
        self, tenant_id: str, webhook_id: str, *, status: DeliveryStatus | None, after: str | None, limit: int
    ) -> list[DeliveryRecord]:
        """What was told to a webhook, or is to be, newest first.

        Raises:
            NotFound: there is no such webhook.
        """
        async with self._database.tenant(tenant_id) as connection:
            await _found(connection, tenant_id, webhook_id)
            return await deliveries.page(connection, tenant_id, webhook_id, status=status, after=after, limit=limit)

    async def replay(self, caller: Caller, webhook_id: str, delivery_id: str) -> DeliveryRecord:
        """Tell a delivery again, whatever became of it; one that waits is told at once.

        Raises:
            NotFound: there is no such webhook, or no such delivery to it.
            Conflict: the webhook is disabled.
        """
        async with self._database.tenant(caller.tenant_id) as connection:
            if (await _found(connection, caller.tenant_id, webhook_id)).disabled_why is not None:
                raise Conflict("The webhook is disabled; enable it first.")
            replayed = await deliveries.replay(connection, caller.tenant_id, webhook_id, delivery_id)
            if replayed is None:
                raise NotFound("delivery", delivery_id)
            await _record(connection, caller, "replayed", delivery_id)
        return replayed

    def _check(self, url: str) -> None:
        try:
            self._receivers.read(url)
        except RequestRefused as error:
            raise InvalidInput("url", f"Not told there: {error}.") from None

    @property
    def _sealing(self) -> Keyring:
        if self._keyring is None:
            raise Unavailable("HOLDFAST_PAYLOAD_KEYS is not set here, so the secret of a webhook can't be kept.")
        return self._keyring


async def _found(connection: AsyncConnection, tenant_id: str, webhook_id: str) -> Webhook:
    webhook = await webhooks.find(connection, tenant_id, webhook_id)
    if webhook is None:
        raise NotFound("webhook", webhook_id)
    return webhook


async def _record(connection: AsyncConnection, caller: Caller, outcome: str, subject_id: str) -> None:
    entry = audit.Entry(kind="webhook", outcome=outcome, subject_id=subject_id, person=caller.person)
    await audit.append(connection, caller.tenant_id, entry)
