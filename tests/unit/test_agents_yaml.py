"""`agents.yaml`: what it means, and what is said of one with a mistake."""

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from holdfast.config.agents_shape import json_schema
from holdfast.config.agents_yaml import check_aliases, check_tools, load_agents, warnings
from holdfast.domain.agents import (
    AgentSpec,
    ConfirmationDefaults,
    Escalation,
    HttpAccess,
    Identity,
    Limits,
    OnBusy,
    ToolRule,
)
from holdfast.domain.errors import ConfigurationError
from holdfast.domain.tools import Declaration, Described, Effect

WHOLE = """\
version: 1
models: conf/models.yaml
tools: [examples.shop.tools]
defaults:
  limits: {max_steps: 7}
  confirmation: {deadline: 20m}
agents:
  support:
    model: quality
    identity: {name: Mira, role: Support agent}
    persona: Warm, brief, exact.
    system_prompt: prompts/support.md
    limits: {patience: 3m}
    tools:
      lookup_order: allow
      refund_order: {confirm: always, deadline: 15m, on_deadline: reject}
      list_orders: {confirm: never}
      "mcp__github__*": confirm
      delete_account: deny
    http: {allow: [api.example.com, "*.example.org", "http://127.0.0.1:8080"]}
  echo:
    model: fast
    system_prompt: Say it again.
"""

AGENT = "version: 1\nagents:\n  support:\n    model: quality\n"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(text: str) -> Path:
    path = Path("agents.yaml")
    path.write_text(text, encoding="utf-8")
    return path


def complaint(text: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load_agents(written(text))
    return str(raised.value)


def test_a_whole_file() -> None:
    Path("prompts").mkdir()
    Path("prompts/support.md").write_text("You help.\n", encoding="utf-8")
    file = load_agents(written(WHOLE))
    assert file.models_path == Path("conf/models.yaml")
    assert file.tool_modules == ("examples.shop.tools",)
    support, echo = file.agents
    assert support == AgentSpec(
        name="support",
        model="quality",
        identity=Identity(name="Mira", role="Support agent"),
        persona="Warm, brief, exact.",
        system_prompt="You help.",
        limits=Limits(max_steps=7, patience=timedelta(minutes=3)),
        confirmation=ConfirmationDefaults(deadline=timedelta(minutes=20)),
        tools=(
            ToolRule(pattern="lookup_order", verdict="allow"),
            ToolRule(pattern="refund_order", verdict="confirm", deadline=timedelta(minutes=15), on_deadline="reject"),
            ToolRule(pattern="list_orders", verdict="allow", is_explicit=True),
            ToolRule(pattern="mcp__github__*", verdict="confirm"),
            ToolRule(pattern="delete_account", verdict="deny"),
        ),
        http=HttpAccess(allow=("api.example.com", "*.example.org", "http://127.0.0.1:8080")),
    )
    assert echo.system_prompt == "Say it again."
    assert echo.http == HttpAccess()


def test_an_agents_own_value_wins_even_when_it_is_the_built_in_default() -> None:
    file = load_agents(
        written(
            "version: 1\ndefaults:\n  limits: {max_steps: 9, patience: 1m}\n"
            + AGENT[11:]
            + "    limits: {max_steps: 5}\n"
        )
    )
    assert file.agents[0].limits == Limits(max_steps=5, patience=timedelta(minutes=1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "agents.yaml: is empty"),
        ("- a\n", "agents.yaml:1: must be a mapping"),
        ("version: 1\n", "agents.yaml:1: agents: is missing; add it"),
        ("version: 1\nagents: {}\n", "agents.yaml:2: agents: is empty"),
        ("version: 1\nagents:\n", "agents.yaml:2: agents: has no value; give it one, or remove the key"),
        (AGENT + "1: x\n", "agents.yaml:5: [1]: a key must be text; put it in quotes"),
        (AGENT.replace("1", "2", 1), "agents.yaml:1: version: must be 1"),
        (
            AGENT + "    modell: x\n",
            "agents.yaml:5: agents.support.modell: unknown key 'modell'; did you mean 'model'?",
        ),
        (
            AGENT + "    on_idle: queue\n",
            "agents.yaml:5: agents.support.on_idle: unknown key 'on_idle'; "
            "known here: model, identity, persona, system_prompt, limits, confirmation, on_busy, tools, http",
        ),
        (
            AGENT + "    http:\n      allow:\n        - api.example.com\n        - '*'\n",
            "agents.yaml:8: agents.support.http.allow[1]: '*' would allow every host; "
            "name the hosts, like api.example.com or *.example.org",
        ),
        (AGENT + "    http: {allow: a.example}\n", "agents.yaml:5: agents.support.http.allow: must be a list"),
        (
            AGENT + "    http: {alow: []}\n",
            "agents.yaml:5: agents.support.http.alow: unknown key 'alow'; did you mean 'allow'?",
        ),
        (
            AGENT + "    http: {allow: ['http://169.254.169.254']}\n",
            "agents.yaml:5: agents.support.http.allow[0]: 'http://169.254.169.254' can't be allowed: "
            "it is neither a public nor a private address",
        ),
        (
            AGENT + "    on_busy: wait\n",
            "agents.yaml:5: agents.support.on_busy: must be 'queue', 'steer', 'interrupt' or 'reject'",
        ),
        (
            AGENT + "    tools:\n      refund:\n        confirm: always\n        four_eye: true\n",
            "agents.yaml:8: agents.support.tools.refund.four_eye: unknown key 'four_eye'; did you mean 'four_eyes'?",
        ),
        (
            AGENT + "    limits: {timeout: 24h}\n",
            "agents.yaml:5: agents.support.limits.timeout: unknown key 'timeout'; did you mean 'run_timeout'?",
        ),
        (
            AGENT + "    tools:\n      refund: {confirm: always, on_deadline: approve}\n",
            "agents.yaml:6: agents.support.tools.refund.on_deadline: must be 'reject', 'cancel_run' or 'escalate'",
        ),
        (
            AGENT + "    tools:\n      refund: alow\n",
            "agents.yaml:6: agents.support.tools.refund: must be 'allow', 'confirm' or 'deny'; did you mean 'allow'?",
        ),
        (
            AGENT + "    tools:\n      refund: {deadline: 5m}\n",
            "agents.yaml:6: agents.support.tools.refund.confirm: is missing; add it",
        ),
        (
            AGENT + "    tools:\n      refund: {confirm: never, deadline: 5m}\n",
            "agents.yaml:6: agents.support.tools.refund: nobody is asked where confirm is 'never'; remove deadline",
        ),
        (
            AGENT + "    limits:\n      max_steps: 99\n      patience: 5 minutes\n",
            "agents.yaml:6: agents.support.limits.max_steps: must be at most 50\n"
            "agents.yaml:7: agents.support.limits.patience: '5 minutes' is not a duration; "
            "write it like 90s, 10m, 24h or 1h30m",
        ),
        (
            AGENT + "    persona: no\n",
            "agents.yaml:5: agents.support.persona: must be text; put it in quotes",
        ),
        (
            AGENT.replace("support", "Support!"),
            "agents.yaml:3: agents.Support!: "
            "an agent's name is lower-case letters, digits, '-' and '_', 63 at most, a letter or digit first",
        ),
        (
            "version: 1\ntools:\n- shop.tools\n- shop/tools.py\n" + AGENT[11:],
            "agents.yaml:4: tools[1]: 'shop/tools.py' is not the name of a module; write it like examples.shop.tools",
        ),
        (
            AGENT + "    model: fast\n",
            "agents.yaml:5: agents.support.model: duplicate key, first on line 4; remove one",
        ),
        (
            AGENT + "    persona: a: b\n",
            "agents.yaml:5: not YAML: mapping values are not allowed here; "
            "look at the indentation and the quotes there",
        ),
        (
            AGENT + "    persona: !!python/name:os.system x\n",
            "agents.yaml:5: not YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/name:os.system'; look at the indentation and the quotes there",
        ),
        (
            AGENT + "    persona: &me [*me]\n",
            "agents.yaml:5: not YAML: a value contains itself; look at the indentation and the quotes there",
        ),
        (
            AGENT + "    persona: \x07\n",
            "agents.yaml:5: not YAML: the character #x07 is not allowed; look at the indentation and the quotes there",
        ),
        (
            AGENT + "    system_prompt: prompts/suport.md\n",
            "agents.yaml:5: agents.support.system_prompt: prompts/suport.md can't be read: No such file or directory; "
            "did you mean 'support.md'?",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_mend(text: str, expected: str) -> None:
    Path("prompts").mkdir()
    Path("prompts/support.md").touch()
    assert complaint(text) == expected


def test_a_missing_file() -> None:
    with pytest.raises(ConfigurationError, match=r"^agents\.yaml: can't be read: No such file or directory$"):
        load_agents(Path("agents.yaml"))


def test_ten_mistakes_are_told_and_the_rest_counted() -> None:
    lines = complaint(AGENT + "".join(f"    zz{number}: 1\n" for number in range(12))).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "and 2 more"


def test_values_shared_by_an_anchor_are_no_duplicates() -> None:
    text = (
        "version: 1\nagents:\n"
        "  first: {model: fast, tools: &common {a: allow}}\n"
        "  second: {model: fast, tools: &stricter {<<: *common, a: deny}}\n"
        "  third: {model: fast, tools: *stricter}\n"
    )
    _, second, third = load_agents(written(text)).agents
    assert second.tools == third.tools == (ToolRule(pattern="a", verdict="deny"),)


def tools(*names: str, **declared: Any) -> dict[str, Described]:
    """Tools of these names, each with an amount."""
    return {name: Described(Declaration(**declared), ("amount",)) for name in names}


def rule_of(text: str) -> ToolRule:
    """The one rule of an agent, in its long form."""
    file = load_agents(written(AGENT + f"    tools:\n      refund_order: {text}\n"))
    return file.agents[0].tools[0]


def test_a_rule_says_how_people_are_asked() -> None:
    asking = rule_of(
        "{confirm: always, four_eyes: true, approvers: [billing], deadline: 15m, remind_after: 5m, "
        "on_deadline: escalate, escalate: {to: [head], deadline: 30m, on_deadline: cancel_run}}"
    )
    assert asking == ToolRule(
        pattern="refund_order",
        verdict="confirm",
        four_eyes=True,
        approvers=("billing",),
        deadline=timedelta(minutes=15),
        remind_after=timedelta(minutes=5),
        on_deadline="escalate",
        escalate=Escalation(to=("head",), deadline=timedelta(minutes=30), on_deadline="cancel_run"),
    )


def test_a_rule_may_depend_on_the_arguments() -> None:
    assert rule_of("{confirm: {when: amount > 100}}").when == "amount > 100"
    assert rule_of("{confirm: never}").is_explicit


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{confirm: {when: 'amount >'}}", "'amount >' is not an expression"),
        ("{confirm: {when: '__import__(1)'}}", "only len, lower, min, max, abs can be called"),
        ("{confirm: {when: '[x for x in y]'}}", "ListComp is not possible here"),
        ("{confirm: never, four_eyes: true}", "nobody is asked where confirm is 'never'; remove four_eyes"),
        ("{confirm: always, on_deadline: escalate}", "needs approvers, and whom to escalate to"),
        ("{confirm: always, escalate: {to: [a], deadline: 1m}}", "does nothing where on_deadline is not 'escalate'"),
        ("{confirm: always, deadline: 1m, remind_after: 1m}", "remind_after comes after the deadline"),
        ("{confirm: always, attempts: 0}", "must be at least 1"),
        ("{confirm: always, effect: reads}", "must be 'read', 'reversible' or 'irreversible'"),
    ],
)
def test_a_rule_that_makes_no_sense(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=r"agents\.yaml:") as raised:
        rule_of(text)
    assert said in str(raised.value)


def test_an_expression_that_looks_at_what_is_not_there_is_warned_of() -> None:
    text = AGENT + "    tools:\n      refund_order: {confirm: {when: amuont > 1}}\n"
    (warning,) = warnings(load_agents(written(text)), tools("refund_order"))
    assert "refund_order has no argument 'amuont', so a person is always asked; did you mean 'amount'?" in warning


def test_a_rule_that_overrules_an_author_is_warned_of() -> None:
    text = AGENT + "    tools:\n      refund_order: {confirm: never}\n"
    (warning,) = warnings(load_agents(written(text)), tools("refund_order", confirm="always"))
    assert "lets refund_order run unconfirmed, which its author wants confirmed" in warning


def test_http_requests_that_reach_no_host_are_warned_of() -> None:
    text = AGENT + "    tools: {http_request: confirm}\n"
    (warning,) = warnings(load_agents(written(text)), tools("http_request"))
    assert warning.endswith("agents.support.tools.http_request: reaches nothing; name hosts under http.allow")
    assert warnings(load_agents(written(text + "    http: {allow: [example.com]}\n")), tools("http_request")) == []


def test_a_rule_that_would_loosen_what_an_author_declared_is_refused() -> None:
    text = AGENT + "    tools:\n      refund_order: {confirm: always, effect: read, timeout: 2m}\n"
    file = load_agents(written(text))
    check_tools(file, tools("refund_order"))
    with pytest.raises(ConfigurationError) as raised:
        check_tools(file, tools("refund_order", effect=Effect.IRREVERSIBLE, timeout_s=60.0))
    assert str(raised.value).splitlines() == [
        f"agents.yaml:6: agents.support.tools.refund_order: {name} of refund_order is declared more strictly by its "
        "author; tighten it, or remove it"
        for name in ("effect", "timeout")
    ]


def test_what_one_message_may_take() -> None:
    text = AGENT + "    on_busy: steer\n    limits: {max_cost_usd: 0.1, max_tool_calls: 3, run_timeout: 2h}\n"
    (agent,) = load_agents(written(text)).agents
    assert (agent.on_busy, agent.limits.max_cost_usd) == (OnBusy.STEER, Decimal("0.1"))
    assert (agent.limits.max_tool_calls, agent.limits.run_timeout) == (3, timedelta(hours=2))


def test_a_rule_that_can_match_nothing_is_warned_of() -> None:
    text = AGENT + "    tools:\n      lookup_ordr: allow\n      'refund_*': confirm\n      'mcp__*': confirm\n"
    assert warnings(load_agents(written(text)), tools("lookup_order", "refund_order")) == [
        "agents.yaml:6: agents.support.tools.lookup_ordr: matches no tool; did you mean 'lookup_order'?",
        "agents.yaml:8: agents.support.tools.mcp__*: matches no tool",
    ]


@pytest.mark.parametrize(
    ("aliases", "unusable", "expected"),
    [
        (["qualty"], {}, "models.yaml has no alias 'quality'; did you mean 'qualty'?"),
        (["fast", "judge"], {}, "models.yaml has no alias 'quality'; it has 'fast', 'judge'"),
        ([], {"quality": ("A_KEY", "B_KEY")}, "no deployment of 'quality' can be used; set A_KEY or B_KEY"),
    ],
)
def test_a_model_that_is_no_alias(aliases: list[str], unusable: dict[str, tuple[str, ...]], expected: str) -> None:
    file = load_agents(written(AGENT))
    check_aliases(file, ["quality"])
    with pytest.raises(ConfigurationError) as raised:
        check_aliases(file, aliases, unusable)
    assert str(raised.value) == f"agents.yaml:4: agents.support.model: {expected}"


def test_the_schema_for_editors_agrees_with_the_loader() -> None:
    schema = json.loads(json.dumps(json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(yaml.safe_load(WHOLE))
    for wrong in ("persona: 3", "on_busy: wait", "tools: {a: alow}", "limits: {patience: 5 minutes}"):
        assert not validator.is_valid(yaml.safe_load(f"{AGENT}    {wrong}\n")), wrong
    assert not validator.is_valid(yaml.safe_load(AGENT.replace("support", "Support!")))
