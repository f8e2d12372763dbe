"""The models.yaml that people copy: each alias there is, each model known, priced and not about to retire."""

from pathlib import Path

import pytest

from holdfast.config.models_yaml import DEMO_MODEL, Deployment, ModelsFile, load_models
from holdfast.llm.known_models import is_priced, makes_vectors
from holdfast.llm.library import litellm

FILE = Path(__file__).parents[2] / "examples/shop/models.yaml"

# What is said to be a key is taken out of every text from then on: an address must not be one.
EVERY_PROVIDER = {
    **dict.fromkeys(("ANTHROPIC_API_KEY", "OPENAI_API_KEY"), "sk-of-nobody-at-all"),
    **dict.fromkeys(("OLLAMA_API_BASE", "HOLDFAST_DEMO_MODEL_URL"), "http://127.0.0.1"),
}


@pytest.fixture(scope="module")
def shipped() -> ModelsFile:
    return load_models(FILE, EVERY_PROVIDER, allow_demo=True)


def listed(deployment: Deployment) -> dict[str, object]:
    provider, _, name = deployment.model.partition("/")
    return dict(litellm.model_cost.get(name) or litellm.model_cost.get(f"{provider}/{name}") or {})


def test_the_four_aliases_are_there_and_nothing_in_the_file_is_unused(shipped: ModelsFile) -> None:
    assert set(shipped.aliases) == {"quality", "fast", "judge", "embedder"}
    assert shipped.warnings == ()
    assert shipped.fallbacks == {"quality": ("fast",)}


def test_every_model_has_a_price(shipped: ModelsFile) -> None:
    assert [one["litellm_params"]["model"] for one in shipped.for_router() if not is_priced(one)] == []


def test_no_model_is_said_to_retire(shipped: ModelsFile) -> None:
    hosted = [one for one in shipped.deployments if not one.model.startswith("ollama") and one.model != DEMO_MODEL]
    assert {one.model for one in hosted if not listed(one)} == set()
    assert {one.model for one in hosted if listed(one).get("deprecation_date")} == set()


def test_only_the_embedder_makes_vectors_and_it_has_one_model(shipped: ModelsFile) -> None:
    embedders = [one for one in shipped.for_router() if makes_vectors(one)]
    assert [one["model_name"] for one in embedders] == ["embedder"]
    assert "embedder" not in shipped.fallbacks


def test_ollama_is_called_by_the_name_that_streams_tool_calls(shipped: ModelsFile) -> None:
    ollama = {one.model.partition("/")[0] for one in shipped.deployments if one.model.startswith("ollama")}
    assert ollama == {"ollama_chat"}
