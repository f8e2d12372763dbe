"""How property tests run here, and what the tests of the pool need: to be alone."""

import importlib
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from holdfast.testing.provider import ScriptedProvider

# No clock decides: a machine that is busy with other tests is slow, not wrong.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture
def no_other_pool() -> None:
    """Forget the pools of earlier tests.

    LiteLLM is made for one Router a process: each adds callbacks, which count its calls and failures, and beyond a
    hundred new ones are dropped without a word.
    """
    litellm = importlib.import_module("holdfast.llm.library").litellm
    litellm.logging_callback_manager._reset_all_callbacks()


@pytest.fixture(scope="session")
def session_unit_provider() -> Iterator[ScriptedProvider]:
    """A provider that no run of another test can ask."""
    with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
def provider(session_unit_provider: ScriptedProvider) -> ScriptedProvider:
    """The provider of the unit tests, as new."""
    session_unit_provider.reset()
    return session_unit_provider
