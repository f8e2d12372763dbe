"""Webhooks, as Standard Webhooks has them (standardwebhooks.com): a signed POST, told again under the same id.

`webhook-id` is the delivery's, in every attempt and every replay; `webhook-timestamp` is the attempt's; in
`webhook-signature` there is a signature for each secret that is good at the moment. 2xx is delivered; 410 says that
nobody is there any more, and disables the webhook; anything else is tried again. Of the answer nothing is kept but its
status. No redirect is followed: what is told goes where the tenant said and nowhere else.
"""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from standardwebhooks import Webhook as Signing

from holdfast.channels.channel import Permanent, Retryable
from holdfast.channels.receivers import Receivers
from holdfast.channels.webhook_secrets import opened
from holdfast.domain.deliveries import Delivery, told
from holdfast.secrecy.keyring import CantOpen, Keyring
from holdfast.store import audit, subscriptions, webhooks
from holdfast.store.engine import Database
from holdfast.store.webhooks import Webhook
from holdfast.tools.http_exchange import Exchanger, Response
from holdfast.tools.http_rules import REDIRECTS, Request, RequestFailed, RequestRefused
from holdfast.tools.run import OutcomeUnknown

#: How long a receiver may take from the connection to the end of its answer, in seconds.
PATIENCE_S = 15.0

_GONE = 410
_SECONDS = re.compile(r"\d{1,7}")


class WebhookChannel:
    """Tells webhooks.

    Args:
        keyring: opens the secrets; None: none can be opened here.
        receivers: which addresses may be told; checked at each attempt, since what the operator allows may change.
    """

    def __init__(
        self,
        database: Database,
        keyring: Keyring | None,
        receivers: Receivers,
        exchanger: Exchanger | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._receivers = receivers
        self._exchanger = exchanger or Exchanger()
        self._patience_s = patience_s

    async def deliver(self, delivery: Delivery) -> None:
        """POST the event to the webhook.

        Raises:
            Permanent: the webhook is gone or disabled, or may not be told.
            Retryable: it could not be reached, or did not answer as it should.
        """
        async with self._database.tenant(delivery.tenant_id) as connection:
            webhook = await webhooks.find(connection, delivery.tenant_id, delivery.target_id)
        if webhook is None:
            raise Permanent("the webhook was deleted")
        if webhook.disabled_why is not None:
            raise Permanent("the webhook is disabled")
        response = await self._posted(self._request(webhook, delivery))
        if response.status == _GONE:
            await self._disable(delivery.tenant_id, webhook)
            raise Permanent("the receiver answered 410, and the webhook is disabled")
        _check(response)

    def _request(self, webhook: Webhook, delivery: Delivery) -> Request:
        try:
            receiver = self._receivers.read(webhook.url)
        except RequestRefused as error:
            raise Permanent(str(error)) from error
        body = told(delivery)
        headers = {
            "content-type": "application/json",
            **signed(self._secrets(delivery.tenant_id, webhook), delivery.delivery_id, body, datetime.now(UTC)),
        }
        return Request("POST", receiver.url, headers, body.encode(), receiver.named_address)

    def _secrets(self, tenant_id: str, webhook: Webhook) -> list[str]:
        if self._keyring is None:
            raise Retryable("HOLDFAST_PAYLOAD_KEYS, which opens its secret, is not set")
        kept = [webhook.secret] if webhook.old_secret is None else [webhook.secret, webhook.old_secret]
        try:
            return [opened(self._keyring, tenant_id, webhook.webhook_id, sealed) for sealed in kept]
        except CantOpen as error:
            raise Retryable("HOLDFAST_PAYLOAD_KEYS does not open its secret") from error

    async def _posted(self, request: Request) -> Response:
        try:
            return await self._exchanger.exchange(request, asyncio.get_running_loop().time() + self._patience_s)
        except RequestRefused as error:
            # What a name leads to may be another address tomorrow.
            raise Retryable(str(error)) from error
        except RequestFailed as error:
            raise Retryable("the receiver could not be reached") from error
        except OutcomeUnknown as error:
            is_slow = isinstance(error.__cause__, TimeoutError)
            raise Retryable(
                f"no answer within {self._patience_s:g} s" if is_slow else "the connection broke off before an answer"
            ) from error

    async def _disable(self, tenant_id: str, webhook: Webhook) -> None:
        why = "its receiver answered 410 Gone"
        async with self._database.tenant(tenant_id) as connection:
            if await webhooks.disable(connection, tenant_id, webhook.webhook_id, webhook.url, why):
                await subscriptions.pause(connection, tenant_id, webhook.webhook_id)
                entry = audit.Entry(kind="webhook", outcome="disabled", subject_id=webhook.webhook_id, detail=why)
                await audit.append(connection, tenant_id, entry)


def signed(secrets: list[str], webhook_id: str, body: str, at: datetime) -> Mapping[str, str]:
    """The headers that say what is told, when, and by whom: a signature with each of the secrets."""
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Signing(secret).sign(webhook_id, at, body) for secret in secrets),
    }


def _check(response: Response) -> None:
    if 200 <= response.status < 300:
        return
    why = f"the receiver answered {response.status}"
    if response.status in REDIRECTS:
        why += ", and redirects are not followed"
    raise Retryable(why, retry_after(response.headers.get("retry-after", ""), datetime.now(UTC)))


def retry_after(header: str, now: datetime) -> timedelta | None:
    """For how long a receiver asks not to be asked, as seconds or as a date; None: it does not say, or not clearly."""
    if _SECONDS.fullmatch(header.strip()):
        return timedelta(seconds=int(header))
    try:
        asked = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return max(asked.replace(tzinfo=asked.tzinfo or UTC) - now, timedelta(0))
