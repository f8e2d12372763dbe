"""What a model call can cost at most, before it is made: what a budget reserves for it.

The most among the deployments that may answer, those of the fallback aliases included. Each is taken to read the whole
prompt at its dearest price, and to write until it must stop: at `max_tokens` of the call or of the deployment, else at
the most that the model can write. An unpriced deployment counts as free, since nobody can say more of it.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Any

from holdfast.llm import known_models

#: What a model is taken to write at most, in tokens, when neither models.yaml nor LiteLLM's list says.
DEFAULT_MAX_OUTPUT_TOKENS = 16_384

#: What providers put round a prompt of ours, in tokens: Anthropic adds 350 to 550 where there are tools.
_TOKENS_AROUND = 600

#: For an image, a sound or a file in a message, wherever its bytes are.
_TOKENS_A_MEDIUM = 4_000

_SMALLEST = Decimal("1e-9")

_KINDS_OF_FALLBACK = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Deployment:
    name: str
    prices: known_models.Prices | None
    max_output_tokens: int

    def worst(self, prompt_tokens: int, max_tokens: int | None) -> Decimal:
        if self.prices is None:
            return Decimal(0)
        output = self.prices.output_usd * (max_tokens or self.max_output_tokens)
        return self.prices.input_usd * prompt_tokens + output


class WorstCases:
    """What calls of each alias can cost at most."""

    def __init__(self, model_list: Iterable[dict[str, Any]], router_settings: dict[str, Any]) -> None:
        self._deployments: dict[str, list[_Deployment]] = defaultdict(list)
        for one in model_list:
            self._deployments[str(one["model_name"])].append(_deployment(one))
        self._next = _fallbacks(router_settings, list(self._deployments))
        self._warned: set[str] = set()

    def of(self, alias: str, content: Sequence[Any], max_tokens: int | None = None) -> Decimal:
        """The most that a call of an alias with this content (messages and tools, or texts) can cost, in US dollars."""
        prompt_tokens = _tokens(content)
        may_answer = self._may_answer(alias)
        self._warn_of_unpriced(may_answer)
        costs = (deployment.worst(prompt_tokens, max_tokens) for deployment in may_answer)
        return max(costs, default=Decimal(0)).quantize(_SMALLEST, ROUND_UP)

    def _may_answer(self, alias: str) -> list[_Deployment]:
        reached = [alias]
        for one in reached:
            reached += [following for following in self._next[one] if following not in reached]
        return [deployment for one in reached for deployment in self._deployments[one]]

    def _warn_of_unpriced(self, deployments: list[_Deployment]) -> None:
        for deployment in deployments:
            if deployment.prices is None and deployment.name not in self._warned:
                self._warned.add(deployment.name)
                log.warning("%s has no price, so no budget holds its calls back", deployment.name)


def _deployment(one: dict[str, Any]) -> _Deployment:
    params = one["litellm_params"]
    written = params.get("max_tokens") or params.get("max_completion_tokens") or known_models.max_output_tokens(one)
    name = str((one.get("model_info") or {}).get("id") or params["model"])
    return _Deployment(name, known_models.dearest_prices(one), int(written or DEFAULT_MAX_OUTPUT_TOKENS))


def _fallbacks(settings: dict[str, Any], aliases: list[str]) -> dict[str, list[str]]:
    """The aliases that the Router may ask after each."""
    following = defaultdict(list, {alias: list(settings.get("default_fallbacks") or ()) for alias in aliases})
    for kind in _KINDS_OF_FALLBACK:
        for entry in settings.get(kind) or ():
            for alias, targets in entry.items():
                following[alias] += targets
    return following


def _tokens(content: Sequence[Any]) -> int:
    # No tokenizer makes more tokens of a text than it has bytes, and JSON in ASCII has at least as many characters. Of
    # English that is four times too many, of hexadecimal digits nearly none; and it is the output that is dear.
    text = json.dumps(list(content), default=str, separators=(",", ":"))
    return len(text) + _TOKENS_AROUND + _TOKENS_A_MEDIUM * sum(_media(message) for message in content)


def _media(message: Any) -> int:
    parts = message.get("content") if isinstance(message, dict) else None
    return sum(part.get("type") != "text" for part in parts) if isinstance(parts, list) else 0
