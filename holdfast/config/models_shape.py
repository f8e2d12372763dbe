"""The shape of `models.yaml`: what LiteLLM's file holds, as far as Holdfast knows it.

Deployments take more parameters than stand here; those go to LiteLLM as they are. Settings are another matter: what is
not named here is not passed on, and is warned of.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from holdfast.config.shape import OpenShape

Filled = Annotated[str, Field(min_length=1)]
Fallbacks = list[dict[str, list[str]]]


class ListedParams(OpenShape):
    """How a deployment is called, before any variable is looked at."""

    model: Filled
    order: int | None = None


class Listed(OpenShape):
    """A deployment as it stands in the file."""

    model_name: Filled
    litellm_params: ListedParams
    model_info: dict[str, Any] = Field(default_factory=dict)


class ListedFile(OpenShape):
    """The file as it stands."""

    model_list: list[Listed] = Field(min_length=1)
    router_settings: dict[str, Any] = Field(default_factory=dict)
    litellm_settings: dict[str, Any] = Field(default_factory=dict)


class Params(ListedParams):
    """How a deployment is called. LiteLLM takes many more; those go to it as they are."""

    api_key: str | None = None
    api_base: str | None = None
    timeout: float | None = None
    stream_timeout: float | None = None
    rpm: int | None = None
    tpm: int | None = None
    max_parallel_requests: int | None = None


class Usable(Listed):
    """A deployment whose variables are all set."""

    litellm_params: Params


class RouterSettings(OpenShape):
    """The settings of LiteLLM's Router that Holdfast passes on. Not among them: Redis, alerts, and retry policies."""

    routing_strategy: (
        Literal[
            "simple-shuffle",
            "least-busy",
            "usage-based-routing",
            "usage-based-routing-v2",
            "latency-based-routing",
            "cost-based-routing",
        ]
        | None
    ) = None
    routing_strategy_args: dict[str, Any] = Field(default_factory=dict)
    timeout: float | None = None
    stream_timeout: float | None = None
    num_retries: int | None = None
    fallbacks: Fallbacks = Field(default_factory=list)
    context_window_fallbacks: Fallbacks = Field(default_factory=list)
    content_policy_fallbacks: Fallbacks = Field(default_factory=list)
    default_fallbacks: list[str] = Field(default_factory=list)
    max_fallbacks: int | None = None
    allowed_fails: int | None = None
    allowed_fails_policy: dict[str, int] | None = None
    cooldown_time: float | None = None
    disable_cooldowns: bool | None = None
    enable_pre_call_checks: bool = False
    enable_weighted_failover: bool = False
    default_litellm_params: dict[str, Any] = Field(default_factory=dict)
    default_max_parallel_requests: int | None = None


class LitellmSettings(OpenShape):
    """LiteLLM's global settings that Holdfast passes on. Not among them: callbacks, which would see conversations."""

    drop_params: bool = False
    modify_params: bool = False
    request_timeout: float | None = None
    num_retries: int | None = None


class UsableFile(OpenShape):
    """The file with the values of its variables; deployments keep their place in the list as their key."""

    model_list: dict[int, Usable]
    router_settings: RouterSettings = RouterSettings()
    litellm_settings: LitellmSettings = LitellmSettings()
