"""Embeddings as they go over the wire, OpenAI's and Ollama's.

The vector of a text is made of its words alone: the same text has the same vector, and texts that share words are
close to each other.
"""

import base64
import hashlib
import math
import re
import struct
from collections.abc import Sequence
from typing import Any

from holdfast.llm.openai_wire import Answer

#: As many as OpenAI's smaller model gives, unless the request says otherwise.
DIMENSIONS = 1_536

_WORD = re.compile(r"\w+")


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """The vector of a text, of length one."""
    counts = [0] * dimensions
    for word in _WORD.findall(text.lower()) or [text]:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        counts[int.from_bytes(digest) % dimensions] += 1
    length = math.hypot(*counts)
    return [count / length for count in counts]


def texts(body: dict[str, Any]) -> list[str]:
    """What a request wants vectors of: one text or several. A text that comes as tokens is known by their numbers."""
    given = body.get("input", [])
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        return [str(given)]
    return [str(text) for text in given]


def openai_embeddings(answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
    """The vectors as OpenAI sends them: numbers, or base64 if the request asks for that."""
    encode = _base64 if body.get("encoding_format") == "base64" else list[float]
    data = [
        {"object": "embedding", "index": index, "embedding": encode(each)} for index, each in enumerate(_vectors(body))
    ]
    usage = {"prompt_tokens": answer.prompt_tokens, "total_tokens": answer.prompt_tokens}
    return {"object": "list", "data": data, "model": answer.model} | ({"usage": usage} if answer.sends_usage else {})


def ollama_embeddings(answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
    """The vectors as Ollama sends them."""
    usage = {"prompt_eval_count": answer.prompt_tokens} if answer.sends_usage else {}
    return {"model": answer.model, "embeddings": _vectors(body), "total_duration": 1_000_000, **usage}


def _vectors(body: dict[str, Any]) -> list[list[float]]:
    return [vector(text, body.get("dimensions") or DIMENSIONS) for text in texts(body)]


def _base64(numbers: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
