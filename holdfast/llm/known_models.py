"""What is known of a deployment's model, from models.yaml or from LiteLLM's list: its price, and what it makes.

A model that neither prices is unpriced, not free. A price of one's own belongs under `model_info`: under
`litellm_params`, LiteLLM works it out anew at every call, which costs half as much CPU again.
"""

from decimal import Decimal
from typing import Any

from holdfast.llm.library import litellm

#: What is kept of a cost: billionths of a dollar, as the database does.
_SMALLEST = Decimal("1e-9")


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


def is_priced(deployment: dict[str, Any]) -> bool:
    """Whether a price is known, be it zero."""
    if _own_price(deployment) is not None:
        return True
    return any(entry.get("input_cost_per_token") is not None for entry in _listed(deployment))


def makes_vectors(deployment: dict[str, Any]) -> bool:
    """Whether it is a model for embeddings: `model_info.mode` says so, or LiteLLM's list."""
    own = (deployment.get("model_info") or {}).get("mode")
    return "embedding" in (own, *(entry.get("mode") for entry in _listed(deployment) if own is None))


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
