"""Which models `holdfast dev` can use: a provider whose key is set, Ollama on its usual port, or the demo model."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from holdfast.dev.demo_model import build_demo_model
from holdfast.dev.ports import is_listening
from holdfast.dev.serving import serving

_KEYS = {"ANTHROPIC_API_KEY": "Anthropic", "OPENAI_API_KEY": "OpenAI"}
_OLLAMA_PORT = 11434


def found_providers(environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The providers that are there, by name, and the variables to set for them."""
    # Blank is as good as unset, as in the models file.
    named = [name for key, name in _KEYS.items() if environ.get(key, "").strip()]
    if environ.get("OLLAMA_API_BASE", "").strip():
        return [*named, "Ollama"], {}
    if is_listening(_OLLAMA_PORT):
        return [*named, "Ollama"], {"OLLAMA_API_BASE": f"http://127.0.0.1:{_OLLAMA_PORT}"}
    return named, {}


@asynccontextmanager
async def demo_model() -> AsyncIterator[str]:
    """Serve the demo model while the block runs; gives the base URL of its OpenAI-compatible API."""
    async with serving(build_demo_model()) as url:
        yield f"{url}/v1"
