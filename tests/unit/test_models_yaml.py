"""`models.yaml`: LiteLLM's form, resolved; nothing swallowed, no secret shown."""

import ast
import traceback
from importlib.util import find_spec
from pathlib import Path

import pytest

from holdfast.config.models_shape import RouterSettings
from holdfast.config.models_yaml import LeftOut, ModelsFile, load_models
from holdfast.domain.errors import ConfigurationError

SECRET = "sk-do-not-show"

FILE = """\
model_list:
  - model_name: quality
    litellm_params: {model: anthropic/big, api_key: os.environ/ANTHROPIC_API_KEY, order: 1}
  - model_name: quality
    litellm_params:
      model: openai/big
      api_key: os.environ/OPENAI_API_KEY
      order: 2
      rpm: os.environ/RPM
      extra_headers: {x-org: os.environ/ORG}
    model_info: {base_model: big}
  - model_name: fast
    litellm_params: {model: openai/small, api_key: os.environ/OPENAI_API_KEY}
  - model_name: judge
    litellm_params: {model: other/judge, api_key: os.environ/JUDGE_KEY}
router_settings:
  timeout: 30
  fallbacks: [{quality: [judge, fast]}, {judge: [quality]}, {fast: [judge]}]
  context_window_fallbacks: [{fast: [quality]}]
  default_fallbacks: [judge, fast]
litellm_settings:
  drop_params: true
"""

ENVIRON = {"OPENAI_API_KEY": f"{SECRET}\n", "RPM": "100", "ORG": "acme", "JUDGE_KEY": " "}
ONE = "model_list:\n  - model_name: quality\n    litellm_params: {model: openai/big}\n"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str, environ: dict[str, str] | None = None, *, allow_demo: bool = False) -> ModelsFile:
    path = Path("models.yaml")
    path.write_text(text, encoding="utf-8")
    return load_models(path, environ or {}, allow_demo=allow_demo)


def test_variables_are_put_in_and_what_lacks_one_is_left_out() -> None:
    file = load(FILE, ENVIRON)
    assert file.aliases == ("quality", "fast")
    assert file.for_router()[0] == {
        "model_name": "quality",
        "litellm_params": {
            "model": "openai/big",
            "api_key": SECRET,
            "order": 2,
            "rpm": 100,
            "extra_headers": {"x-org": "acme"},
        },
        "model_info": {"base_model": "big", "id": "quality#2"},
    }
    assert file.left_out == (
        LeftOut("quality#1", "quality", "anthropic/big", 1, "ANTHROPIC_API_KEY", 3),
        LeftOut("judge#1", "judge", "other/judge", None, "JUDGE_KEY", 15),
    )
    assert file.unusable == {"judge": ("JUDGE_KEY",)}
    assert file.warnings == ()


def test_fallbacks_lose_the_aliases_that_cannot_be_used() -> None:
    file = load(FILE, ENVIRON)
    assert file.fallbacks == {"quality": ("fast",)}
    assert file.router_settings == {
        "timeout": 30,
        "fallbacks": [{"quality": ["fast"]}],
        "context_window_fallbacks": [{"fast": ["quality"]}, {"quality": ["fast"]}],
        "default_fallbacks": ["fast"],
        "num_retries": 0,
    }


def test_an_entry_with_several_aliases_is_split_because_litellm_sees_the_first_only() -> None:
    text = ONE + ONE.replace("quality", "fast").partition("\n")[2]
    file = load(text + "router_settings:\n  fallbacks: [{quality: [fast], fast: [quality]}]\n")
    assert file.router_settings["fallbacks"] == [{"quality": ["fast"]}, {"fast": ["quality"]}]


def test_the_router_cannot_write_into_the_file() -> None:
    file = load(FILE, ENVIRON)
    file.for_router()[0]["litellm_params"]["extra_headers"]["x-org"] = "changed"
    assert file.for_router()[0]["litellm_params"]["extra_headers"] == {"x-org": "acme"}


def test_no_repr_shows_a_secret() -> None:
    settings = "  default_litellm_params: {api_key: os.environ/OPENAI_API_KEY}\nlitellm_settings:"
    file = load(FILE.replace("litellm_settings:", settings), ENVIRON)
    assert file.router_settings["default_litellm_params"]["api_key"] == SECRET
    assert SECRET not in repr(file) + repr(file.deployments) + str(file.warnings)


@pytest.mark.parametrize(
    "text",
    [
        ONE.replace("}", f", api_key: [{SECRET}]}}"),
        ONE.replace("}", f", rpm: {SECRET}}}"),
        ONE.replace("}", f", api_key: {SECRET}, api_key: {SECRET}}}"),
        ONE + f"    api_key: {SECRET}: x\n",
        ONE + f"    api_key: '{SECRET}\n",
        ONE + f"router_settings:\n  timeout: {SECRET}\n",
    ],
)
def test_no_complaint_shows_a_secret(text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(text)
    assert SECRET not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model_list: []\n", "models.yaml:1: model_list: is empty"),
        (
            "model_list:\n  - model_name: quality\n    litellm_parms: {model: a/b}\n",
            "models.yaml:2: model_list[0].litellm_params: is missing; add it",
        ),
        (
            ONE.replace("}", ", api_key: os.environ/A}")
            + "  - model_name: fast\n    litellm_params: {model: a/b, api_key: os.environ/B}\n",
            "models.yaml:1: model_list: no model can be used; set A or B",
        ),
        (
            ONE + "router_settings:\n  fallbacks:\n  - quality: [qualty]\n  - fsat: [quality]\n",
            "models.yaml:6: router_settings.fallbacks[0].quality[0]: there is no alias 'qualty'; "
            "did you mean 'quality'?\n"
            "models.yaml:7: router_settings.fallbacks[1].fsat: there is no alias 'fsat'",
        ),
        (
            ONE + "router_settings:\n  routing_strategy: simple-shufle\n",
            "models.yaml:5: router_settings.routing_strategy: must be 'simple-shuffle', 'least-busy', "
            "'usage-based-routing', 'usage-based-routing-v2', 'latency-based-routing' or 'cost-based-routing'; "
            "did you mean 'simple-shuffle'?",
        ),
        (
            ONE.replace("}", ", api_key: os.environ/}"),
            "models.yaml:3: model_list[0].litellm_params.api_key: names no variable; "
            "write it like os.environ/OPENAI_API_KEY",
        ),
        (
            ONE + "router_settings:\n  timeout: os.environ/TIMEOUT\n",
            "models.yaml:5: router_settings.timeout: TIMEOUT is not set; set it",
        ),
        (
            # The first deployment is left out; the second must still be called by its own place.
            ONE.replace("}", ", api_key: os.environ/A}") + ONE.replace("}", ", rpm: many}").partition("\n")[2],
            "models.yaml:5: model_list[1].litellm_params.rpm: must be a whole number",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_mend(text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(text)
    assert str(raised.value) == expected


def test_what_is_not_used_is_warned_of_and_not_passed_on() -> None:
    text = ONE + (
        "    tpyo: 1\n"
        "router_settings:\n"
        "  routing_stratgy: simple-shuffle\n"
        "  redis_password: os.environ/REDIS\n"
        "litellm_settings:\n"
        "  fallbacks: []\n"
        "general_settings: {master_key: x}\n"
    )
    file = load(text)
    assert file.warnings == (
        "models.yaml:10: general_settings: is not used by Holdfast",
        "models.yaml:6: router_settings.routing_stratgy: is not used by Holdfast; did you mean 'routing_strategy'?",
        "models.yaml:7: router_settings.redis_password: is not used by Holdfast",
        "models.yaml:9: litellm_settings.fallbacks: is not used by Holdfast; put it under router_settings",
        "models.yaml:4: model_list[0].tpyo: is not used by Holdfast",
    )
    assert file.router_settings == {"fallbacks": [], "num_retries": 0}
    assert file.litellm_settings == {"num_retries": 0}


def test_one_layer_retries_and_it_is_not_litellm() -> None:
    text = ONE.replace("}", ", num_retries: 3, max_retries: 0}") + (
        "router_settings: {num_retries: 2, default_litellm_params: {max_retries: 1}}\n"
        "litellm_settings: {num_retries: 1}\n"
    )
    file = load(text)
    assert file.deployments[0].params == {"model": "openai/big", "num_retries": 0, "max_retries": 0}
    assert file.router_settings["num_retries"] == 0
    assert file.router_settings["default_litellm_params"] == {"max_retries": 0}
    assert file.litellm_settings == {"num_retries": 0}
    assert [line.partition(": is taken as 0; ")[0] for line in file.warnings] == [
        "models.yaml:3: model_list[0].litellm_params.num_retries",
        "models.yaml:4: router_settings.num_retries",
        "models.yaml:4: router_settings.default_litellm_params.max_retries",
        "models.yaml:5: litellm_settings.num_retries",
    ]


def test_the_demo_model_is_refused_outside_dev() -> None:
    text = (
        "model_list:\n  - model_name: quality\n"
        "    litellm_params: {model: openai/holdfast-demo, api_base: os.environ/DEMO_URL, api_key: x}\n"
        "  - model_name: quality\n    litellm_params: {model: openai/big}\n"
    )
    url = {"DEMO_URL": "http://127.0.0.1:1"}
    assert len(load(text, url, allow_demo=True).deployments) == 2
    assert len(load(text, allow_demo=False).deployments) == 1
    with pytest.raises(ConfigurationError) as raised:
        load(text, url, allow_demo=False)
    assert str(raised.value) == (
        "models.yaml:3: model_list[0].litellm_params.model: the demo model 'openai/holdfast-demo' is only for "
        "`holdfast dev`; in production, leave DEMO_URL unset, or remove the deployment"
    )


def test_litellms_router_takes_every_setting_that_is_passed_on() -> None:
    """Read from its source: importing LiteLLM takes seconds."""
    spec = find_spec("litellm")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).with_name("router.py").read_text(encoding="utf-8"))
    router = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Router")
    init = next(node for node in router.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    assert set(RouterSettings.model_fields) <= {argument.arg for argument in init.args.args}


def test_a_deployment_without_an_order_beside_ordered_ones_is_warned_of() -> None:
    file = load(
        """
        model_list:
          - model_name: quality
            litellm_params: {model: openai/first, order: 1}
          - model_name: quality
            litellm_params: {model: openai/forgotten}
          - model_name: fast
            litellm_params: {model: openai/alone}
        """,
        ENVIRON,
    )

    (warning,) = file.warnings
    assert "models.yaml:6: model_list[1].litellm_params: has no order, but others of 'quality' have" in warning
    assert warning.endswith("give it an order")
