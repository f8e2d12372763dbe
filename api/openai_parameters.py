"""Parameters of OpenAI's APIs beside those that a route takes: which make no difference here, and which can't be had.

A client must not believe that something was heeded which was not: a parameter that would change what comes of a request
is refused, unless it has the value that is the case anyway. What only tunes a model is the agent's to say, and ignored.
"""

from collections.abc import Mapping
from typing import Any

from holdfast.domain.errors import InvalidInput

#: What tunes the model, the bill or the caches, in either API.
_TUNING = frozenset(
    {
        "temperature",
        "top_p",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "service_tier",
        "parallel_tool_calls",
    }
)
_IGNORED_BY_RESPONSES = _TUNING | {"include", "max_output_tokens", "reasoning", "stream_options", "truncation"}
_IGNORED_BY_CHAT = _TUNING | {
    "frequency_penalty",
    "logit_bias",
    "max_completion_tokens",
    "max_tokens",
    "presence_penalty",
    "reasoning_effort",
    "seed",
    "store",
    "verbosity",
}

#: What is the case anyway, and may be said.
_AS_IT_IS_FOR_RESPONSES: Mapping[str, tuple[Any, ...]] = {
    "instructions": ("",),
    "store": (True,),
    "tool_choice": ("auto",),
    "top_logprobs": (0,),
}
_AS_IT_IS_FOR_CHAT: Mapping[str, tuple[Any, ...]] = {
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "response_format": ({"type": "text"},),
    "stop": ([], ""),
    "tool_choice": ("auto",),
    "top_logprobs": (0,),
}

#: Why, where it is not plain.
_WHY = {
    "instructions": "What an agent is told is its operator's to say, in its prompt.",
    "store": "What happens here is on record.",
    "text": "An agent answers in text.",
    "response_format": "An agent answers in text.",
    "tool_choice": "An agent decides by itself which tools it calls; auto is what can be said.",
}


def check_for_responses(others: Mapping[str, Any]) -> None:
    """Refuse what `/v1/responses` can't do.

    Raises:
        InvalidInput: a parameter would change something, and can't.
    """
    text = others.get("text")
    is_plain = isinstance(text, dict) and text.get("format") in (None, {"type": "text"})
    ignored = _IGNORED_BY_RESPONSES | ({"text"} if is_plain else set())
    _check(others, ignored, _AS_IT_IS_FOR_RESPONSES)


def check_for_chat(others: Mapping[str, Any]) -> None:
    """Refuse what `/v1/chat/completions` can't do.

    Raises:
        InvalidInput: a parameter would change something, and can't.
    """
    _check(others, _IGNORED_BY_CHAT, _AS_IT_IS_FOR_CHAT)


def _check(others: Mapping[str, Any], ignored: frozenset[str] | set[str], as_it_is: Mapping[str, Any]) -> None:
    for name, value in others.items():
        if name in ignored or value is None or value in as_it_is.get(name, ()):
            continue
        shown = name if name.isidentifier() and len(name) < 100 else "?"
        raise InvalidInput(shown, f"{shown} is not supported. {_WHY.get(name, '')}".strip())
