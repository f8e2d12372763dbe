"""The composition root of the API: settings in, services out, on one page."""

import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncEngine

from api.slack_door import SlackDoor
from holdfast.channels.receivers import Receivers
from holdfast.channels.slack_client import SlackClient
from holdfast.config.models_yaml import load_models
from holdfast.config.settings import AccessSettings, ApiSettings
from holdfast.config.slack_yaml import slack_of
from holdfast.domain.errors import ConfigurationError
from holdfast.domain.hosts import read_entry
from holdfast.domain.permissions import Caller
from holdfast.domain.slack import SlackApp
from holdfast.llm.lazy import LazyPool
from holdfast.llm.pool import ModelPool
from holdfast.llm.tenant_slots import TenantSlots
from holdfast.secrecy.erased_keys import ErasedKeys
from holdfast.services.agents import Agents
from holdfast.services.anchors import Anchors
from holdfast.services.audit_heads import Signer
from holdfast.services.audit_log import AuditLog
from holdfast.services.budgets import Budgets
from holdfast.services.confirmations import Confirmations
from holdfast.services.exchanges import Exchanges
from holdfast.services.issuer import IssuerKeys
from holdfast.services.keys import PREFIX, Keys
from holdfast.services.messages import Messages
from holdfast.services.models import Models
from holdfast.services.principals import Principals
from holdfast.services.provider_keys import ProviderKeys
from holdfast.services.relay import Relay
from holdfast.services.request_limits import RequestLimits, StreamLimit
from holdfast.services.retention import Retention, kept
from holdfast.services.run_events import RunEvents
from holdfast.services.runs import Runs
from holdfast.services.slack_decisions import SlackDecisions
from holdfast.services.slack_messages import SlackMessages
from holdfast.services.slack_notices import SlackNotices
from holdfast.services.sweeper import Sweeper
from holdfast.services.switches import Stopper, Switches
from holdfast.services.tokens import Tokens, TokenTerms
from holdfast.services.tool_calls import ToolCalls
from holdfast.services.webhooks import Webhooks
from holdfast.store.engine import Database, create_engine
from holdfast.streaming.herald import Herald
from holdfast.streaming.run_changes import RunChanges
from holdfast.temporal import client
from holdfast.temporal.client import CALL, DeliveryWorkflows, MessageWorkflows
from holdfast.temporal.codec import SealingCodec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Access:
    """Who is calling, and how often they may. `tokens` None: no identity provider is set. `hosts` None: any."""

    keys: Keys
    tokens: Tokens | None
    limits: RequestLimits
    streams: StreamLimit
    hosts: tuple[str, ...] | None

    async def caller(self, credential: str) -> Caller:
        """Whose a key or a token is.

        Raises:
            CredentialRefused: it is none, or not any more.
            Unavailable: nobody can tell now.
        """
        if self.tokens is None or credential.startswith(PREFIX):
            return await self.keys.caller(credential)
        return await self.tokens.caller(credential)

    def forget(self) -> None:
        """Forget who callers are, since that has changed."""
        self.keys.forget()
        if self.tokens is not None:
            self.tokens.forget()


@dataclass(frozen=True)
class PoolServices:
    """What the routes of the model pool ask for. `models` None: this process serves none."""

    database: Database
    access: Access
    models: Models | None


@dataclass(frozen=True)
class Services(PoolServices):
    """Everything that a route of the API can ask for."""

    agents: Agents
    audit: AuditLog
    budgets: Budgets
    confirmations: Confirmations
    events: RunEvents
    exchanges: Exchanges
    confirmation_wait_s: float
    messages: Messages
    principals: Principals
    provider_keys: ProviderKeys
    runs: Runs
    stopper: Stopper
    switches: Switches
    tool_calls: ToolCalls
    slack: SlackDoor | None
    webhooks: Webhooks
    temporal_ui_url: str | None
    temporal_namespace: str
    codec: SealingCodec | None


@asynccontextmanager
async def wire(settings: ApiSettings) -> AsyncIterator[Services]:
    """Build the services and run what runs beside them: relay, sweeper, stopper and the listening connection.

    Raises:
        ConfigurationError: the database's role is not bound by row-level security.
        Unavailable: the database does not answer. (Temporal may be away: what is accepted meanwhile starts later.)
    """
    engine = create_engine(settings.database_url.get_secret_value(), settings.database_pool_size)
    herald = Herald(engine)
    database = Database(engine, herald.tell)
    try:
        await database.check_role()
        provider_keys = ProviderKeys(database, settings.keyring)
        temporal = await client.connect(settings.keyring, lazy=True)
        workflows = MessageWorkflows(temporal, settings.task_queue)
        # Who sends a message has no time, and a run that is to be stopped has none; the relay and the sweeper have.
        patient = MessageWorkflows(temporal, settings.task_queue, CALL)
        deliveries = DeliveryWorkflows(temporal, settings.task_queue)
        stopper = Stopper(database, workflows)
        slack_apps = _slack_apps(settings)
        async with (
            _running(engine, database, patient, deliveries, stopper) as changes,
            access(settings, database) as access_,
            _anchoring(settings, database),
            _slack_notices(settings, slack_apps) as notices,
            _retaining(settings, database),
        ):
            confirmations = Confirmations(database, workflows)
            messages = Messages(database, workflows, _erased_keys(settings))
            principals = Principals(database, access_.forget)
            yield Services(
                database=database,
                agents=Agents(database),
                audit=AuditLog(database),
                budgets=Budgets(database),
                confirmations=confirmations,
                confirmation_wait_s=settings.confirmation_wait_s,
                access=access_,
                events=RunEvents(database, changes),
                models=_models(settings, database, provider_keys),
                exchanges=Exchanges(database, messages, confirmations),
                messages=messages,
                principals=principals,
                provider_keys=provider_keys,
                runs=Runs(database, changes, workflows),
                slack=_slack(slack_apps, database, messages, confirmations, principals, notices),
                stopper=stopper,
                switches=Switches(database),
                tool_calls=ToolCalls(database, workflows),
                webhooks=Webhooks(database, settings.keyring, _receivers(settings)),
                temporal_ui_url=settings.temporal_ui_url,
                temporal_namespace=temporal.namespace,
                codec=None if settings.keyring is None else SealingCodec(settings.keyring),
            )
    finally:
        await herald.close()
        await database.close()


@asynccontextmanager
async def _running(
    engine: AsyncEngine,
    database: Database,
    workflows: MessageWorkflows,
    deliveries: DeliveryWorkflows,
    stopper: Stopper,
) -> AsyncIterator[RunChanges]:
    changes, sweeper = RunChanges(engine, database), Sweeper(database, workflows)
    relay = Relay(database, workflows, deliveries, changes)
    changes.start()
    relay.start()
    sweeper.start()
    stopper.start()
    try:
        yield changes
    finally:
        await stopper.stop()
        await sweeper.stop()
        await relay.stop()
        await changes.stop()


@asynccontextmanager
async def access(settings: AccessSettings, database: Database) -> AsyncIterator[Access]:
    """What tells who is calling; what it has still to write is written at the end."""
    keys = Keys(database, settings.key_pepper.get_secret_value(), settings.previous_peppers)
    tokens = _tokens(settings, database)
    try:
        limits, streams = RequestLimits(settings.requests_per_minute), StreamLimit(settings.streams_per_person)
        yield Access(keys, tokens, limits, streams, settings.hosts)
    finally:
        await keys.close()
        if tokens is not None:
            await tokens.close()


def _erased_keys(settings: AccessSettings) -> ErasedKeys:
    return ErasedKeys.of(settings.key_pepper.get_secret_value(), settings.previous_peppers)


def _receivers(settings: ApiSettings) -> Receivers:
    return Receivers(tuple(map(read_entry, settings.webhook_allow)), allows_loopback=settings.environment == "dev")


def _tokens(settings: AccessSettings, database: Database) -> Tokens | None:
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return None
    terms = TokenTerms(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        algorithms=frozenset(settings.oidc_algorithms),
        tenant_claim=settings.oidc_tenant_claim,
        principal_claim=settings.oidc_principal_claim,
        roles_claim=settings.oidc_roles_claim,
    )
    return Tokens(database, IssuerKeys(settings.oidc_issuer, settings.oidc_jwks_url), terms)


@asynccontextmanager
async def _anchoring(settings: ApiSettings, database: Database) -> AsyncIterator[None]:
    """Anchor the audit log while the block runs, if a file is named for it."""
    if settings.audit_anchors is None:
        yield
        return
    if settings.audit_signing_key is None:
        raise ConfigurationError(
            "HOLDFAST_AUDIT_SIGNING_KEY: is not set, and HOLDFAST_AUDIT_ANCHORS is; set it to an Ed25519 private key "
            "in PEM (openssl genpkey -algorithm ed25519), or unset the other"
        )
    signer = Signer.of(settings.audit_signing_key.get_secret_value(), "HOLDFAST_AUDIT_SIGNING_KEY")
    anchors = Anchors(database, signer, settings.audit_anchors, settings.audit_anchor_interval_s)
    anchors.start()
    try:
        yield
    finally:
        await anchors.stop()


def _slack_apps(settings: ApiSettings) -> tuple[SlackApp, ...]:
    slack = slack_of(settings, os.environ)
    for warning in slack.warnings:
        log.warning("%s", warning)
    return slack.apps


@asynccontextmanager
async def _slack_notices(settings: ApiSettings, apps: Sequence[SlackApp]) -> AsyncIterator[SlackNotices]:
    """What is told to one person of a thread; what is on its way at the end arrives."""
    workspaces = {app.workspace.team_id: app.workspace for app in apps}
    notices = SlackNotices(workspaces, partial(SlackClient, api_url=settings.slack_api_url))
    try:
        yield notices
    finally:
        await notices.close()


def _slack(
    apps: Sequence[SlackApp],
    database: Database,
    messages: Messages,
    confirmations: Confirmations,
    principals: Principals,
    notices: SlackNotices,
) -> SlackDoor | None:
    if not apps:
        return None
    return SlackDoor(
        apps,
        SlackMessages(database, messages, principals, notices),
        SlackDecisions(database, confirmations, principals, notices),
    )


@asynccontextmanager
async def _retaining(settings: ApiSettings, database: Database) -> AsyncIterator[None]:
    """Remove what has had its time while the block runs."""
    days = settings.events_kept_days
    retention = Retention(database, kept(timedelta(days=days) if days else None))
    retention.start()
    try:
        yield
    finally:
        await retention.stop()


def _models(settings: ApiSettings, database: Database, provider_keys: ProviderKeys) -> Models | None:
    if settings.models is None:
        return None
    file = load_models(settings.models, os.environ, allow_demo=settings.environment == "dev")
    lazy = LazyPool(lambda: ModelPool(file.for_router(), file.router_settings, file.litellm_settings))
    return Models(database, lazy.get, file.unusable, provider_keys, TenantSlots(settings.tenant_max_model_calls))


def pool_services(request: Request) -> PoolServices:
    """What the API and the model pool have in common, of the application that a request came to."""
    found: PoolServices = request.app.state.services
    return found


def models(request: Request) -> Models:
    """The model calls of the application that a request came to, which serves them or has no such route."""
    found = pool_services(request).models
    assert found is not None
    return found


def slack(request: Request) -> tuple[SlackDoor, Access]:
    """The door for Slack of the application that a request came to, which has one or has no such route."""
    found = services(request)
    assert found.slack is not None
    return found.slack, found.access


def services(request: Request) -> Services:
    """The services of the application that a request came to."""
    found: Services = request.app.state.services
    return found
