"""What is known of a deployment's model, from models.yaml or from LiteLLM's list: its price, and what it makes.

A model that neither prices is unpriced, not free. A price of one's own belongs under `model_info`: under
`litellm_params`, LiteLLM works it out anew at every call, which costs half as much CPU again.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from holdfast.llm.library import litellm

#: What is kept of a cost: billionths of a dollar, as the database does.
_SMALLEST = Decimal("1e-9")

#: What a token of the prompt may be charged as: read, or read and kept for the next call.
_INPUT_PRICES = ("input_cost_per_token", "cache_creation_input_token_cost")
_OUTPUT_PRICES = ("output_cost_per_token", "output_cost_per_reasoning_token")

#: Ends of the names of prices for calls that ask for them, as ours do where the deployment's parameters say so.
_SERVICE_TIERS = ("_priority", "_flex", "_batches")


@dataclass(frozen=True)
class Prices:
    """What a token costs at most, in US dollars: long prompts, for one, may be dearer than short ones."""

    input_usd: Decimal
    output_usd: Decimal


def cost(deployment: dict[str, Any], usage: Any, *, call_type: str = "completion") -> Decimal | None:
    """What a call cost, in US dollars; None when no price is known, for which LiteLLM would say 0.0."""
    if usage is None or not is_priced(deployment):
        return None
    prompt, completion = litellm.cost_per_token(
        model=deployment["litellm_params"]["model"],
        prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
        completion_tokens=getattr(usage, "completion_tokens", 0) or 0,
        usage_object=usage,
        custom_cost_per_token=_own_price(deployment),
        call_type=call_type,
    )
    return Decimal(str(prompt + completion)).quantize(_SMALLEST)


def provider_of(deployment: dict[str, Any]) -> str | None:
    """Whose a deployment is, for tenants' own keys: what `model_info.provider` says, or LiteLLM's name for it.

    None: it is called OpenAI's, or anybody's, and stands at an address of its own. Nobody's key may go there unasked.
    """
    said = (deployment.get("model_info") or {}).get("provider")
    if said is not None:
        return str(said)
    params = deployment["litellm_params"]
    if params.get("api_base") or params.get("base_url"):
        return None
    return str(litellm.get_llm_provider(params["model"])[1])


def is_priced(deployment: dict[str, Any]) -> bool:
    """Whether a price is known, be it zero."""
    if _own_price(deployment) is not None:
        return True
    return any(entry.get("input_cost_per_token") is not None for entry in _listed(deployment))


def dearest_prices(deployment: dict[str, Any]) -> Prices | None:
    """The highest price of a token that the deployment may ask; None when no price is known."""
    if not is_priced(deployment):
        return None
    own = _own_price(deployment)
    entries = [own] if own is not None else _listed(deployment)
    tiers = () if deployment["litellm_params"].get("service_tier") else _SERVICE_TIERS
    output = Decimal(0) if makes_vectors(deployment) else _dearest(entries, _OUTPUT_PRICES, tiers)
    return Prices(_dearest(entries, _INPUT_PRICES, tiers), output)


def max_output_tokens(deployment: dict[str, Any]) -> int | None:
    """How much the model writes at most, as `model_info` says, or LiteLLM's list; None when neither does."""
    entries = (deployment.get("model_info") or {}, *_listed(deployment))
    said = (entry.get("max_output_tokens") or entry.get("max_tokens") for entry in entries)
    return next((int(tokens) for tokens in said if tokens), None)


def makes_vectors(deployment: dict[str, Any]) -> bool:
    """Whether it is a model for embeddings: `model_info.mode` says so, or LiteLLM's list."""
    own = (deployment.get("model_info") or {}).get("mode")
    return "embedding" in (own, *(entry.get("mode") for entry in _listed(deployment) if own is None))


def _dearest(entries: list[dict[str, Any]], names: tuple[str, ...], left_out: tuple[str, ...]) -> Decimal:
    prices = (
        Decimal(str(price))
        for entry in entries
        for name, price in entry.items()
        if name.startswith(names) and not name.endswith(left_out) and isinstance(price, int | float)
    )
    return max(prices, default=Decimal(0))


def _listed(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    params = deployment["litellm_params"]
    name, provider, _, _ = litellm.get_llm_provider(params["model"], api_base=params.get("api_base"))
    keys = (params["model"], f"{provider}/{name}", name)
    return [entry for key in keys if (entry := litellm.model_cost.get(key)) is not None]


def _own_price(deployment: dict[str, Any]) -> Any:
    for place in (deployment.get("model_info") or {}, deployment["litellm_params"]):
        if place.get("input_cost_per_token") is not None:
            return {
                "input_cost_per_token": float(place["input_cost_per_token"]),
                "output_cost_per_token": float(place.get("output_cost_per_token") or 0),
            }
    return None
