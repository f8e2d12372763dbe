"""`holdfast doctor`: does everything answer, and is it as it should be?"""

from collections.abc import Awaitable, Callable

import typer

from holdfast.domain.errors import HoldfastError
from holdfast.domain.slack import Workspace


def doctor() -> None:
    """Test each connection, and say what is wrong with it. Reads the settings of the API and of Temporal."""
    import asyncio

    if not asyncio.run(_examine()):
        raise typer.Exit(1)


async def _examine() -> bool:
    checks: dict[str, Callable[[], Awaitable[str]]] = {
        "API": _api,
        "database": _database,
        "Temporal": _temporal,
        "payloads": _payloads,
        "Slack": slack,
    }
    return all([await _report(name, check) for name, check in checks.items()])


async def _report(name: str, check: Callable[[], Awaitable[str]]) -> bool:
    try:
        typer.echo(f"ok    {name}: {await check()}")
    except HoldfastError as error:
        typer.echo(f"FAIL  {name}: {error}")
        return False
    return True


async def _api() -> str:
    from holdfast.cli.connection import Api

    return f"answers, the key is known; {len(Api().get('/v1/agents')['data'])} agents"


async def _database() -> str:
    from holdfast.cli.environment import settings_of
    from holdfast.config.settings import Settings
    from holdfast.domain.errors import ConfigurationError
    from holdfast.store.engine import Database, create_engine
    from holdfast.store.migrate import newest_revision

    settings = settings_of(Settings)
    database = Database(create_engine(settings.database_url.get_secret_value(), pool_size=1))
    try:
        await database.check_role()
        revision = await database.revision()
        breaches = await database.breaches()
    finally:
        await database.close()
    if revision != newest_revision():
        raise ConfigurationError(f"it is at revision {revision}, not {newest_revision()}; run `holdfast migrate`")
    if breaches:
        raise ConfigurationError(f"tenants are not kept apart: {'; '.join(map(str, breaches))}")
    return f"the role is bound by row-level security, and no table, view or function evades it; revision {revision}"


async def _payloads() -> str:
    from holdfast.cli.environment import settings_of
    from holdfast.config.settings import SealingSettings

    settings = settings_of(SealingSettings)
    if settings.keyring is not None:
        return f"sealed with the key {settings.keyring.sealing_key_id!r}"
    return "; ".join(["not sealed", *settings.warnings])


async def _temporal() -> str:
    from holdfast.domain.errors import ConfigurationError
    from holdfast.temporal.client import connect, missing_search_attributes
    from holdfast.temporal.fairness import is_fair

    client = await connect()
    missing = await missing_search_attributes(client)
    if missing:
        raise ConfigurationError(
            f"namespace {client.namespace} lacks the search attributes {', '.join(missing)}; add each with "
            "`temporal operator search-attribute create --type Keyword --name NAME`"
        )
    if not await is_fair(client):
        raise ConfigurationError(
            "it does not serve tenants in turn: set matching.enableFairness to true in the server's dynamic "
            "configuration; on Temporal Cloud, turn Fairness on for the namespace"
        )
    return f"namespace {client.namespace} answers, has the search attributes, and serves tenants in turn"


async def slack() -> str:
    """What Slack says of the tokens that are set.

    Raises:
        ConfigurationError: one is missing, or of another workspace, or may not do enough.
        Unavailable: Slack does not answer, or refuses one.
    """
    import os

    from holdfast.config.loading import load_settings
    from holdfast.config.settings import SLACK_IS_OFF, SlackSettings
    from holdfast.config.slack_yaml import slack_of
    from holdfast.domain.errors import ConfigurationError

    settings = load_settings(SlackSettings)
    file = slack_of(settings, os.environ)
    left_out = [*file.warnings, *([SLACK_IS_OFF] if settings.slack_team and not file.apps else [])]
    if left_out:
        raise ConfigurationError("; ".join(left_out))
    if not file.apps:
        return "off, since HOLDFAST_SLACK_BOT_TOKEN is not set"
    return "; ".join([await _workspace(app.workspace, settings.slack_api_url) for app in file.apps])


async def _workspace(workspace: Workspace, api_url: str) -> str:
    from holdfast.channels.slack_client import SCOPES, SlackClient, SlackError
    from holdfast.domain.errors import ConfigurationError, Unavailable

    try:
        installed = await SlackClient(workspace.bot_token, api_url).installed()
    except SlackError as error:
        raise Unavailable(f"the token of the workspace {workspace.team_id}: {error}") from error
    if installed.team_id != workspace.team_id:
        raise ConfigurationError(
            f"the token is of the workspace {installed.team_id}, and was set for {workspace.team_id}; mend one of them "
            "(HOLDFAST_SLACK_TEAM, HOLDFAST_SLACK_BOT_TOKEN)"
        )
    if not installed.is_bot:
        raise ConfigurationError(
            f"the token of the workspace {workspace.team_id} is that of the user {installed.user_id}, who would seem "
            "to write what agents do; set the Bot User OAuth Token (xoxb-…) in its place"
        )
    missing = sorted(SCOPES - installed.scopes)
    if missing:
        raise ConfigurationError(
            f"in the workspace {workspace.team_id} the app lacks the scopes {', '.join(missing)}; add them under "
            "OAuth & Permissions, and install it again"
        )
    return f"the token is of the workspace {workspace.team_id}, for the tenant {workspace.tenant_id!r}"
