"""What each process is told by its environment: variables named `HOLDFAST_…`.

A class for each process, with what that process needs and nothing else: the worker never holds the pepper of the API's
keys, and only `holdfast migrate` holds the password of the tables' owner. A secret may also be given as the path of a
file (`HOLDFAST_KEY_PEPPER_FILE`), the way container platforms mount them.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from holdfast.config.messages import Mistake, configuration_error
from holdfast.config.shape import wording

_PREFIX = "HOLDFAST_"
_DRIVER = "postgresql+asyncpg"


def _with_driver(url: SecretStr) -> SecretStr:
    """The URL as SQLAlchemy wants it: with the asyncpg driver, which is the one installed."""
    scheme, separator, rest = url.get_secret_value().partition("://")
    if not separator or scheme not in ("postgresql", "postgres", _DRIVER):
        raise ValueError("is not a PostgreSQL URL")
    return SecretStr(f"{_DRIVER}://{rest}")


DatabaseUrl = Annotated[SecretStr, AfterValidator(_with_driver)]
_POOL_CALLS = "the most calls of /complete and its like that a tenant has in flight in this process"
_REQUESTS = "the most requests of a person in a minute, counted by this process; 0 for no limit"
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


class ServingSettings(Settings):
    """What the API and the worker share."""

    database_pool_size: int = Field(default=10, ge=1, description="the most connections of this process")
    task_queue: str = Field(default="holdfast", description="the name of the Temporal task queue")


class ApiSettings(ServingSettings):
    """What the API needs."""

    key_pepper: SecretStr = Field(min_length=32, description="at least 32 random characters (openssl rand -hex 32)")
    api_host: str = Field(default="127.0.0.1", description="the address to listen on")
    api_port: Port = Field(default=8000, description="the port to listen on")
    requests_per_minute: int = Field(default=600, ge=0, description=_REQUESTS)
    temporal_ui_url: str | None = Field(default=None, description="the address of the Temporal UI, for links to it")
    models: Path | None = Field(
        default=None, description="the path of models.yaml, to serve the model pool from the API too"
    )
    tenant_max_model_calls: int = Field(default=100, ge=1, description=_POOL_CALLS)


class PoolSettings(Settings):
    """What the model pool needs as a service of its own."""

    database_pool_size: int = Field(default=10, ge=1, description="the most connections of this process")
    key_pepper: SecretStr = Field(min_length=32, description="at least 32 random characters (openssl rand -hex 32)")
    models: Path = Field(default=Path("models.yaml"), description="the path of models.yaml")
    pool_host: str = Field(default="127.0.0.1", description="the address to listen on")
    pool_port: Port = Field(default=8004, description="the port to listen on")
    requests_per_minute: int = Field(default=600, ge=0, description=_REQUESTS)
    tenant_max_model_calls: int = Field(default=100, ge=1, description=_POOL_CALLS)


class WorkerSettings(ServingSettings):
    """What the worker needs."""

    agents: Path = Field(default=Path("agents.yaml"), description="the path of agents.yaml")
    worker_health_port: Port | None = Field(default=None, description="the port of /livez and /readyz")
    worker_max_activities: int = Field(default=200, ge=1, description="the most activities at a time")
    tenant_max_model_calls: int | None = Field(
        default=None, ge=1, description="the most model calls of a tenant at a time; by default half of the activities"
    )
    worker_max_cached_workflows: int = Field(default=1000, ge=1, description="the most runs kept in memory")
    worker_drain_s: float = Field(default=30, ge=0, description="seconds that activities have to end at a stop")


class MigrateSettings(Settings):
    """What `holdfast migrate` needs."""

    database_owner_url: DatabaseUrl = Field(
        description="the URL of the role that owns the tables: postgresql://holdfast_owner:PASSWORD@HOST:5432/holdfast"
    )


Kind = TypeVar("Kind", bound=Settings)


def load_settings(kind: type[Kind]) -> Kind:
    """The settings of one process, from the environment.

    Args:
        kind: the class of what the process needs, such as `ApiSettings`.

    Raises:
        ConfigurationError: variables are missing or wrong; a line for each, and never its value.
    """
    secrets, mistakes = _read_files(kind)
    try:
        settings = kind(**secrets)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            variable = _variable(str(details["loc"][0]))
            mistakes.setdefault(variable, _mistake(kind, details))
    # Outside of `except`: a traceback would otherwise show pydantic's error below ours.
    if mistakes:
        raise configuration_error(list(mistakes.values()))
    return settings


def _read_files(kind: type[Settings]) -> tuple[dict[str, Any], dict[str, Mistake]]:
    """The secrets that are given as files, by field; and what is wrong with those, by variable."""
    secrets: dict[str, Any] = {}
    mistakes: dict[str, Mistake] = {}
    for name in _secret_fields(kind):
        variable = _variable(name)
        path = os.environ.get(f"{variable}_FILE")
        if not path:
            continue
        content = _read_file(variable, path)
        if isinstance(content, Mistake):
            mistakes[variable] = content
        else:
            secrets[name] = content
    return secrets, mistakes


def _read_file(variable: str, path: str) -> str | Mistake:
    if os.environ.get(variable):
        return Mistake(variable, f"is set, and so is {variable}_FILE", "unset one of them")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        return Mistake(f"{variable}_FILE", f"{path} is not UTF-8 text")
    except OSError as error:
        return Mistake(f"{variable}_FILE", f"{path} can't be read: {error.strerror}")


def _secret_fields(kind: type[Settings]) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        if SecretStr in (field.annotation, *get_args(field.annotation)):
            yield name


def _variable(field: str) -> str:
    return f"{_PREFIX}{field.upper()}"


def _mistake(kind: type[Settings], details: ErrorDetails) -> Mistake:
    name = str(details["loc"][0])
    what = "is not set" if details["type"] == "missing" else wording(details)
    return Mistake(_variable(name), what, f"set it to {kind.model_fields[name].description}")
