"""`slack.yaml`: the workspaces of Slack, where there are more than one.

    version: 1
    workspaces:
      T0123ABCD:
        tenant: acme
        agent: support
        channels: {C0456EFGH: billing}                   # another agent answers there
        bot_token: os.environ/ACME_SLACK_BOT_TOKEN
        signing_secret: os.environ/ACME_SLACK_SIGNING_SECRET

Secrets are named, never written: the worker is not given those with which Slack signs. A workspace whose token is not
set is left out, and said so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from holdfast.config.messages import configuration_error
from holdfast.config.settings import ApiSettings, SlackSettings
from holdfast.config.shape import Shape, fit
from holdfast.config.yaml_source import read_yaml
from holdfast.domain.principals import is_tenant
from holdfast.domain.slack import SlackApp, Workspace, is_team
from holdfast.secrecy.redaction import learn

_VARIABLE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")


def _variable(reference: str) -> str:
    found = _VARIABLE.fullmatch(reference)
    if found is None:
        raise ValueError("names no variable: write os.environ/NAME")
    return found[1]


def _team(team: str) -> str:
    if not is_team(team):
        raise ValueError("is not a workspace's id, such as T0123ABCD")
    return team


def _tenant(tenant: str) -> str:
    if not is_tenant(tenant):
        raise ValueError("is not a tenant's name")
    return tenant


Variable = Annotated[str, AfterValidator(_variable)]


class WorkspaceShape(Shape):
    """One workspace."""

    tenant: Annotated[str, AfterValidator(_tenant)]
    agent: str = Field(min_length=1)
    channels: dict[str, str] = Field(default={})
    bot_token: Variable
    signing_secret: Variable


class SlackShape(Shape):
    """The file."""

    version: Literal[1]
    workspaces: dict[Annotated[str, AfterValidator(_team)], WorkspaceShape]


@dataclass(frozen=True)
class SlackFile:
    """What the file says: the workspaces that have a token, and why others are left out."""

    apps: tuple[SlackApp, ...]
    warnings: tuple[str, ...]


def load_slack(path: Path, environ: Mapping[str, str], *, signs: bool) -> SlackFile:
    """Read the file.

    Args:
        path: where it is.
        environ: where its variables are looked up.
        signs: whether the secrets with which Slack signs are needed.

    Raises:
        ConfigurationError: it can't be read, doesn't fit, or names a variable that is not set, and is needed.
    """
    source = read_yaml(path)
    shape = fit(source, SlackShape)
    apps, warnings, mistakes = [], [], []
    for team_id, one in shape.workspaces.items():
        token, secret = environ.get(one.bot_token, ""), environ.get(one.signing_secret, "") if signs else ""
        learn(*filter(None, (token, secret)))
        if not token:
            warnings.append(f"{path}: the workspace {team_id} is left out: {one.bot_token} is not set")
        elif signs and not secret:
            key = ("workspaces", team_id, "signing_secret")
            mistakes.append(
                source.mistake(key, f"{one.signing_secret} is not set", "set it to the app's Signing Secret")
            )
        else:
            apps.append(SlackApp(Workspace(team_id, one.tenant, token), one.agent, secret, one.channels))
    if mistakes:
        raise configuration_error(mistakes)
    return SlackFile(tuple(apps), tuple(warnings))


def slack_of(settings: SlackSettings, environ: Mapping[str, str]) -> SlackFile:
    """The workspaces of a process: those of the file that its settings name, or the one that they say themselves.

    Raises:
        ConfigurationError: as `load_slack` does.
    """
    signs = isinstance(settings, ApiSettings)
    if settings.slack is not None:
        return load_slack(settings.slack, environ, signs=signs)
    workspace = settings.slack_workspace
    if workspace is None:
        return SlackFile((), ())
    agent = settings.slack_agent or "" if isinstance(settings, ApiSettings) else ""
    secret = settings.slack_signing_secret if isinstance(settings, ApiSettings) else None
    return SlackFile((SlackApp(workspace, agent, secret.get_secret_value() if secret else ""),), ())
