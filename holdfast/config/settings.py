"""What each process is told by its environment: variables named `HOLDFAST_…`.

A class for each process, with what that process needs and nothing else: the worker never holds the pepper of the API's
keys, and only `holdfast migrate` holds the password of the tables' owner. A secret may also be given as the path of a
file (`HOLDFAST_KEY_PEPPER_FILE`), the way container platforms mount them.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from holdfast.domain.hosts import read_entry
from holdfast.domain.principals import is_tenant
from holdfast.domain.slack import Workspace, is_team
from holdfast.secrecy.keyring import Keyring

_PREFIX = "HOLDFAST_"
_DRIVER = "postgresql+asyncpg"


def _with_driver(url: SecretStr) -> SecretStr:
    """The URL as SQLAlchemy wants it: with the asyncpg driver, which is the one installed."""
    scheme, separator, rest = url.get_secret_value().partition("://")
    if not separator or scheme not in ("postgresql", "postgres", _DRIVER):
        raise ValueError("is not a PostgreSQL URL")
    return SecretStr(f"{_DRIVER}://{rest}")


def _readable(keys: SecretStr | None) -> SecretStr | None:
    if keys is not None:
        Keyring.parse(keys.get_secret_value())
    return keys


DatabaseUrl = Annotated[SecretStr, AfterValidator(_with_driver)]


def _listed(value: Any) -> Any:
    """Names, with commas between them."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _host_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+:[0-9A-Fa-f:.]*", name) or re.fullmatch(r"[^:]*:\d+", name):
            raise ValueError("must be names alone, without scheme, port or wildcard")
    return names


def _entries(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        read_entry(host)
    return hosts


def _web_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ValueError("is not an https:// address")
    return value


#: The names of this machine for itself.
LOOPBACK = ("localhost", "127.0.0.1", "::1")

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
HostNames = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_host_names)]
AllowedHosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_entries)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
PayloadKeys = Annotated[SecretStr | None, AfterValidator(_readable)]
_POOL_CALLS = "the most calls of /complete and its like that a tenant has in flight in this process"
_PEPPER = "at least 32 random characters (openssl rand -hex 32)"
_REQUESTS = "the most requests of a person in a minute, counted by this process; 0 for no limit"
_STREAMS = "the most streams that a person has open at a time, counted by this process; 0 for no limit"
Port = Annotated[int, Field(ge=1, le=65535)]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class Settings(BaseSettings):
    """What every process needs. A field's description ends the sentence "set it to …"."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    environment: Literal["dev", "production"] = Field(default="production", description="dev or production")
    log_level: Annotated[LogLevel, BeforeValidator(str.upper)] = Field(
        default="INFO", description="DEBUG, INFO, WARNING or ERROR"
    )
    database_url: DatabaseUrl = Field(
        description="the URL of the application's role: postgresql://holdfast_app:PASSWORD@HOST:5432/holdfast"
    )

    @property
    def warnings(self) -> list[str]:
        """What is right, but should not be so in production."""
        return []


class SealingSettings(Settings):
    """What every process needs that seals: the API, the worker and the model pool."""

    payload_keys: PayloadKeys = Field(
        default=None,
        description="id:key, with 32 random bytes in base64 for a key (openssl rand -base64 32); of several, separated"
        " by commas, the first seals and all open",
    )

    @property
    def keyring(self) -> Keyring | None:
        """The keys that seal payloads and provider keys; None: nothing is sealed."""
        return None if self.payload_keys is None else Keyring.parse(self.payload_keys.get_secret_value())

    @property
    def warnings(self) -> list[str]:
        """That nothing is sealed."""
        return sealing_warnings(is_sealing=self.environment == "dev" or self.payload_keys is not None)


class ServingSettings(SealingSettings):
    """What the API and the worker share."""

    # One tells what has changed, one of the API listens to that, and the others do the work.
    database_pool_size: int = Field(default=10, ge=3, description="the most connections of this process")
    task_queue: str = Field(default="holdfast", description="the name of the Temporal task queue")
    webhook_allow: AllowedHosts = Field(
        default=(), description="hosts that webhooks may go to also by http, or though private: http://10.0.0.5:8080"
    )


class SlackSettings(Settings):
    """What the API and the worker share of Slack. Without the bot's token, Slack is off."""

    slack: Path | None = Field(default=None, description="the path of slack.yaml, for several workspaces")
    slack_bot_token: SecretStr | None = Field(
        default=None, description="the app's Bot User OAuth Token: xoxb-…, from OAuth & Permissions"
    )
    slack_team: str | None = Field(default=None, validate_default=True, description="the workspace's id: T0123ABCD")
    slack_tenant: str | None = Field(
        default=None, validate_default=True, description="the tenant that the workspace belongs to"
    )
    slack_api_url: WebUrl = Field(default="https://slack.com/api/", description="the address of Slack's Web API")

    @field_validator("slack_bot_token")
    @classmethod
    def _is_a_bots(cls, token: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if token is not None and info.data.get("slack") is not None:
            raise ValueError("is set, and so is HOLDFAST_SLACK, whose file names the tokens")
        if token is not None and not token.get_secret_value().startswith("xoxb-"):
            raise ValueError("is not a bot's token")
        return token

    @field_validator("slack_team", "slack_tenant")
    @classmethod
    def _goes_with_the_token(cls, value: str | None, info: ValidationInfo) -> str | None:
        return _required_by("slack_bot_token", value, info)

    @field_validator("slack_team")
    @classmethod
    def _is_a_workspace(cls, team: str | None) -> str | None:
        if team is not None and not is_team(team):
            raise ValueError("is not a workspace's id")
        return team

    @field_validator("slack_tenant")
    @classmethod
    def _is_a_tenant(cls, tenant: str | None) -> str | None:
        if tenant is not None and not is_tenant(tenant):
            raise ValueError("is not a tenant's name")
        return tenant

    @property
    def slack_workspace(self) -> Workspace | None:
        """The workspace; None: Slack is off."""
        if self.slack_bot_token is None or self.slack_team is None or self.slack_tenant is None:
            return None
        return Workspace(self.slack_team, self.slack_tenant, self.slack_bot_token.get_secret_value())


class AccessSettings(Settings):
    """What whoever serves requests needs, to know who is calling: for API keys, and for tokens of an OIDC provider."""

    requests_per_minute: int = Field(default=600, ge=0, description=_REQUESTS)
    streams_per_person: int = Field(default=100, ge=0, description=_STREAMS)
    key_pepper: SecretStr = Field(min_length=32, description=_PEPPER)
    key_pepper_previous: SecretStr | None = Field(
        default=None, description="the pepper before, until each key that is in use was used once more"
    )
    allowed_hosts: HostNames | None = Field(
        default=None, description="the names under which this is reached, with commas: api.example.com,api.internal"
    )
    oidc_issuer: WebUrl | None = Field(default=None, description="the `iss` of the tokens: https://login.example.com")
    oidc_audience: str | None = Field(
        default=None, validate_default=True, description="the `aud` of the tokens that are meant for this API"
    )
    oidc_jwks_url: WebUrl | None = Field(
        default=None, description="the address of the issuer's keys, if its discovery document does not say it"
    )
    oidc_algorithms: Annotated[tuple[Algorithm, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=("RS256", "ES256", "EdDSA"), description="asymmetric ones, with commas: RS256,ES256,EdDSA"
    )
    oidc_tenant_claim: str = Field(default="tenant", min_length=1, description="the claim that names the tenant")
    oidc_principal_claim: str = Field(default="sub", min_length=1, description="the claim that names the person")
    oidc_roles_claim: str = Field(default="roles", min_length=1, description="the claim that lists the roles")

    @field_validator("oidc_audience")
    @classmethod
    def _belongs_to_the_issuer(cls, audience: str | None, info: ValidationInfo) -> str | None:
        # A token for another application of the same provider must not open this one.
        if audience is None and info.data.get("oidc_issuer") is not None:
            raise ValueError("is not set, though HOLDFAST_OIDC_ISSUER is")
        return audience

    @property
    def previous_peppers(self) -> list[str]:
        """The pepper before, if there is one."""
        return [] if self.key_pepper_previous is None else [self.key_pepper_previous.get_secret_value()]

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """The names under which this may be reached; None: any. In `dev`, where no proxy looks, the loopback's."""
        if self.allowed_hosts is None and self.environment == "dev":
            return LOOPBACK
        return self.allowed_hosts


class ApiSettings(AccessSettings, SlackSettings, ServingSettings):
    """What the API needs."""

    api_host: str = Field(default="127.0.0.1", description="the address to listen on")
    api_port: Port = Field(default=8000, description="the port to listen on")
    api_unread_s: float = Field(
        default=30, ge=1, description="the seconds after which a client that reads nothing, or asks nothing, is dropped"
    )
    events_kept_days: float = Field(
        default=30, ge=0, le=36500, description="the days after a run's end for which its events are kept; 0 for good"
    )
    confirmation_wait_s: float = Field(
        default=20,
        ge=0,
        description="the seconds that /v1/chat/completions waits for a person before it says what waits for one",
    )
    temporal_ui_url: str | None = Field(default=None, description="the address of the Temporal UI, for links to it")
    models: Path | None = Field(
        default=None, description="the path of models.yaml, to serve the model pool from the API too"
    )
    audit_anchors: Path | None = Field(
        default=None, description="the path of a file, to append the audit log's signed heads to"
    )
    audit_anchor_interval_s: float = Field(default=300, gt=0, description="the seconds between two signed heads")
    audit_signing_key: SecretStr | None = Field(
        default=None, description="an Ed25519 private key in PEM (openssl genpkey -algorithm ed25519)"
    )
    tenant_max_model_calls: int = Field(default=100, ge=1, description=_POOL_CALLS)
    slack_signing_secret: SecretStr | None = Field(
        default=None, validate_default=True, description="the app's Signing Secret, from Basic Information"
    )
    slack_agent: str | None = Field(
        default=None, validate_default=True, description="the agent that answers in the workspace"
    )

    @field_validator("slack_signing_secret", "slack_agent")
    @classmethod
    def _goes_with_slack(cls, value: Any, info: ValidationInfo) -> Any:
        return _required_by("slack_bot_token", value, info)

    @property
    def warnings(self) -> list[str]:
        """Also that Slack can't be answered."""
        is_off = self.slack_bot_token is None and self.slack_signing_secret is not None
        return [*super().warnings, *([SLACK_IS_OFF] if is_off else [])]


class PoolSettings(AccessSettings, SealingSettings):
    """What the model pool needs as a service of its own."""

    database_pool_size: int = Field(default=10, ge=1, description="the most connections of this process")
    models: Path = Field(default=Path("models.yaml"), description="the path of models.yaml")
    pool_host: str = Field(default="127.0.0.1", description="the address to listen on")
    pool_port: Port = Field(default=8004, description="the port to listen on")
    tenant_max_model_calls: int = Field(default=100, ge=1, description=_POOL_CALLS)


class WorkerSettings(SlackSettings, ServingSettings):
    """What the worker needs."""

    agents: Path = Field(default=Path("agents.yaml"), description="the path of agents.yaml")
    worker_health_port: Port | None = Field(default=None, description="the port of /livez and /readyz")
    worker_max_activities: int = Field(default=200, ge=1, description="the most activities at a time")
    tenant_max_model_calls: int | None = Field(
        default=None, ge=1, description="the most model calls of a tenant at a time; by default half of the activities"
    )
    delivery_first_retry_s: float = Field(
        default=5, gt=0, description="the seconds after which a delivery is tried again, twice as long each time"
    )
    delivery_patience_h: float = Field(default=24, gt=0, description="the hours after which a delivery has failed")
    worker_max_cached_workflows: int = Field(default=1000, ge=1, description="the most runs kept in memory")
    worker_drain_s: float = Field(default=30, ge=0, description="seconds that activities have to end at a stop")


class MigrateSettings(Settings):
    """What `holdfast migrate` needs."""

    database_owner_url: DatabaseUrl = Field(
        description="the URL of the role that owns the tables: postgresql://holdfast_owner:PASSWORD@HOST:5432/holdfast"
    )


class EraseSettings(MigrateSettings):
    """What `holdfast erase` needs; the pepper, so that a message that is delivered again is known after all."""

    key_pepper: SecretStr = Field(min_length=32, description=f"what it is for the API: {_PEPPER}")


class ExportSettings(Settings):
    """What `holdfast audit export` needs."""

    audit_signing_key: SecretStr = Field(
        description="an Ed25519 private key in PEM (openssl genpkey -algorithm ed25519)"
    )


class VerifySettings(Settings):
    """What `holdfast audit verify` needs; the key, where it is given anchors."""

    audit_public_key_file: Path | None = Field(
        default=None, description="the path of the signing key's public half in PEM (openssl pkey -pubout)"
    )


Value = TypeVar("Value")

SLACK_IS_OFF = "HOLDFAST_SLACK_BOT_TOKEN is not set: nothing is taken from Slack, and nothing is told there"


def sealing_warnings(*, is_sealing: bool) -> list[str]:
    """What to say where nothing is sealed, and should be."""
    if is_sealing:
        return []
    return [
        f"{variable('payload_keys')} is not set: whoever reads Temporal's database reads ids, tools' names and errors;"
        " see docs/how-to/secrets.md"
    ]


def _required_by(other: str, value: Value, info: ValidationInfo) -> Value:
    if value is None and info.data.get(other) is not None:
        raise ValueError(f"is not set, though {variable(other)} is")
    return value


def variable(field: str) -> str:
    """The variable of a field."""
    return f"{_PREFIX}{field.upper()}"
