"""The door for Slack: whose request it is, and what is done with it.

Slack's Bolt reads and sorts the requests. It is told to work before it answers (`process_before_response`), since 2xx
tells Slack never to send an event again. The signature is checked here, before anything is parsed: over the raw bytes,
with the secret of each app, and a request can only be about a workspace of the app that signed it. Errors pass through
Bolt to `api/problems.py`: while the database is away Slack gets a 503, and sends the event again.
"""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slack_bolt import BoltResponse
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext, AsyncBoltRequest
from slack_bolt.authorization import AuthorizeResult

from holdfast.channels import slack_cards
from holdfast.channels.slack_payloads import press_of
from holdfast.channels.slack_signature import check_signature
from holdfast.domain.confirmations import Decision
from holdfast.domain.errors import InvalidInput, Unauthenticated, Unavailable
from holdfast.domain.slack import Pressed, SlackApp
from holdfast.services.slack_decisions import SlackDecisions
from holdfast.services.slack_messages import SlackMessages

log = logging.getLogger(__name__)

Body = dict[str, Any]

#: Slack waits for three seconds. What takes longer is undone, or was done and comes again as a repeat.
_ANSWERED_WITHIN_S = 2.5

#: Where Bolt keeps which apps a request can be of, by their workspaces.
_SIGNED_BY = "signed_by"

#: The type of what Slack sends where there are too many events.
_RATE_LIMITED = "app_rate_limited"

_ANYTHING = re.compile(".*")


@dataclass(frozen=True)
class _Listeners:
    """What is done with each kind of request."""

    messages: SlackMessages
    decisions: SlackDecisions

    async def event(self, body: Body, context: AsyncBoltContext, ack: AsyncAck) -> None:
        app = _app(context)
        if app is not None:
            await self.messages.receive(app, body)
        await ack()

    async def approve(self, body: Body, context: AsyncBoltContext, ack: AsyncAck) -> None:
        app, pressed = _pressed(body, context)
        if app is not None and pressed is not None:
            await self.decisions.approve(app.workspace, pressed)
        await ack()

    async def reject(self, body: Body, context: AsyncBoltContext, ack: AsyncAck) -> None:
        app, pressed = _pressed(body, context)
        if app is not None and pressed is not None:
            self.decisions.ask_reason(app.workspace, pressed)
        await ack()

    async def review(self, body: Body, context: AsyncBoltContext, ack: AsyncAck) -> None:
        app, pressed = _pressed(body, context)
        if app is not None and pressed is not None:
            await self.decisions.review(app.workspace, pressed)
        await ack()

    async def approve_sent(self, body: Body, context: AsyncBoltContext, ack: AsyncAck) -> None:
        await self._sent(body, context, ack, Decision.APPROVE)

    async def reject_sent(self, body: Body, context: AsyncBoltContext, ack: AsyncAck) -> None:
        await self._sent(body, context, ack, Decision.REJECT)

    async def _sent(self, body: Body, context: AsyncBoltContext, ack: AsyncAck, decision: Decision) -> None:
        app, pressed = _pressed(body, context)
        if app is None or pressed is None:
            await ack()
            return
        refusal = await self.decisions.sent(app.workspace, pressed, decision)
        if refusal is None:
            await ack()
        else:
            await ack(response_action="update", view=slack_cards.notice_modal(refusal))


class SlackDoor:
    """Lets requests of Slack in."""

    def __init__(self, apps: Sequence[SlackApp], messages: SlackMessages, decisions: SlackDecisions) -> None:
        self._apps = apps
        self._bolt = _bolt(_Listeners(messages, decisions))

    async def dispatch(self, headers: Mapping[str, str], body: bytes) -> BoltResponse:
        """What to answer.

        Raises:
            Unauthenticated: the request is not Slack's.
            InvalidInput: it is, and can't be read.
            Unavailable: it could not be dealt with in time, or the database is away.
        """
        signed_by = self._signed_by(headers, body)
        try:
            context = {_SIGNED_BY: {app.workspace.team_id: app for app in signed_by}}
            request = AsyncBoltRequest(body=body.decode(), headers=dict(headers), context=context)
        except (ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
            raise InvalidInput("body", "The body can't be read.") from error
        if request.body.get("type") == _RATE_LIMITED:
            # It comes in place of events, which are not sent again.
            log.warning("Slack holds events back: more come than it sends in an hour (app_rate_limited)")
            return BoltResponse(status=200)
        try:
            async with asyncio.timeout(_ANSWERED_WITHIN_S):
                return await self._bolt.async_dispatch(request)
        except TimeoutError as error:
            raise Unavailable("This took too long; send it again.") from error

    def _signed_by(self, headers: Mapping[str, str], body: bytes) -> list[SlackApp]:
        found = []
        for app in self._apps:
            try:
                check_signature(app.signing_secret, headers, body)
            except Unauthenticated as error:
                refusal = error
            else:
                found.append(app)
        if not found:
            raise refusal
        return found


def _bolt(listeners: _Listeners) -> AsyncApp:
    app = AsyncApp(
        name="holdfast",
        logger=log,
        authorize=_authorize,
        process_before_response=True,
        # Checked before, on the raw bytes.
        request_verification_enabled=False,
        ssl_check_enabled=False,
        # What any bot writes is ignored, see `holdfast.channels.slack_payloads`.
        ignoring_self_events_enabled=False,
    )
    app.error(_pass_on)
    # Whatever else it is subscribed to: an event that nobody answers comes again.
    app.event(_ANYTHING)(listeners.event)
    app.action(slack_cards.APPROVE)(listeners.approve)
    app.action(slack_cards.REJECT)(listeners.reject)
    app.action(slack_cards.REVIEW)(listeners.review)
    app.view(slack_cards.APPROVE)(listeners.approve_sent)
    app.view(slack_cards.REJECT)(listeners.reject_sent)
    app.action(_ANYTHING)(_ignored)
    app.view(_ANYTHING)(_ignored)
    return app


async def _authorize(team_id: str | None) -> AuthorizeResult:
    # Which workspaces there are is known, and Slack is not asked: it waits for this answer.
    return AuthorizeResult(enterprise_id=None, team_id=team_id)


async def _ignored(ack: AsyncAck) -> None:
    await ack()


async def _pass_on(error: Exception) -> None:
    raise error


def _app(context: AsyncBoltContext) -> SlackApp | None:
    app: SlackApp | None = context[_SIGNED_BY].get(str(context.team_id))
    if app is None:
        log.warning("Slack tells of the workspace %r, which is not set up (HOLDFAST_SLACK_TEAM)", context.team_id)
    return app


def _pressed(body: Body, context: AsyncBoltContext) -> tuple[SlackApp | None, Pressed | None]:
    app = _app(context)
    return app, None if app is None else press_of(body, app.workspace.team_id)
