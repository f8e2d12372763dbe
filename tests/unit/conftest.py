"""How property tests run here, and what the tests of the pool need: to be alone."""

import importlib

import pytest
from hypothesis import HealthCheck, settings

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
