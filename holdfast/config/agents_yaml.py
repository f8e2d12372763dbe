"""`agents.yaml`: the agents, their limits, and the policy of their tools."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import (
    BaseModel,
    ValidationError,
)

from holdfast.config.agents_shape import AgentShape, DefaultsShape, FileShape, RuleShape, WhenShape
from holdfast.config.messages import Key, Mistake, configuration_error, did_you_mean
from holdfast.config.shape import fit, wording
from holdfast.config.yaml_source import YamlSource, read_yaml
from holdfast.domain import expressions
from holdfast.domain.agents import (
    AgentSpec,
    ToolRule,
)
from holdfast.domain.tools import Described, loosened

#: The file of MCP servers, where `mcp` names none.
MCP_FILE = ".mcp.json"

Part = TypeVar("Part", bound=BaseModel)


@dataclass(frozen=True)
class AgentsFile:
    """What a file says, with defaults filled in and prompts read. `source` knows the lines, for later complaints.

    `mcp_path` is the file of MCP servers: the one that is named, else the one that lies beside; None: there is none.
    """

    path: Path
    models_path: Path
    tool_modules: tuple[str, ...]
    mcp_path: Path | None
    agents: tuple[AgentSpec, ...]
    source: YamlSource = field(repr=False, compare=False)


def load_agents(path: Path) -> AgentsFile:
    """Read `agents.yaml` and the prompt files that it names.

    Raises:
        ConfigurationError: the file, or a prompt that it names, is wrong or missing, or the file of MCP servers that it
            names is missing; a line for each mistake.
    """
    source = read_yaml(path)
    shape = fit(source, FileShape)
    prompts = _read_prompts(source, shape.agents)
    agents = _agents(source, shape, prompts)
    return AgentsFile(
        path=path,
        models_path=path.parent / shape.models,
        tool_modules=shape.tools,
        agents=agents,
        mcp_path=_mcp_path(source, shape.mcp),
        source=source,
    )


def check_aliases(
    file: AgentsFile, aliases: Iterable[str], unusable: Mapping[str, tuple[str, ...]] | None = None
) -> None:
    """Check that each agent's model is an alias that can be called.

    Args:
        file: the agents.
        aliases: those that have a deployment (`ModelsFile.aliases`).
        unusable: those that have none for want of the variables named (`ModelsFile.unusable`).

    Raises:
        ConfigurationError: it isn't; a line for each agent.
    """
    known, wanting = list(aliases), unusable or {}
    mistakes = [_unknown_alias(file, agent, known, wanting) for agent in file.agents if agent.model not in known]
    if mistakes:
        raise configuration_error(mistakes)


def check_tools(file: AgentsFile, tools: Mapping[str, Described]) -> None:
    """Check that no rule asks for less than the tool's author declared: it would be in vain.

    Raises:
        ConfigurationError: one does; a line for each.
    """
    mistakes = [
        file.source.mistake(
            ("agents", agent.name, "tools", rule.pattern),
            f"{name} of {tool} is declared more strictly by its author",
            "tighten it, or remove it",
        )
        for agent, rule, tool, described in _matches(file, tools)
        for name in loosened(described.declaration, rule.declaration)
    ]
    if mistakes:
        raise configuration_error(mistakes)


def warnings(file: AgentsFile, tools: Mapping[str, Described], later: Iterable[str] = ()) -> list[str]:
    """A line for each rule that does not do what it seems to.

    One that can match nothing, because no tool has such a name; one whose expression looks at an argument that the tool
    does not have, so that a person is always asked; one that overrules a tool's author; one for `http_request` where no
    host is allowed.

    Args:
        file: the agents.
        tools: those that are known.
        later: what the names of those begin with that are not known yet, such as `mcp__github__`.
    """
    return [
        *_idle(file, list(tools), list(later)),
        *_misled(file, tools),
        *_overruling(file, tools),
        *_reaching_nothing(file),
    ]


def _matches(file: AgentsFile, tools: Mapping[str, Described]) -> Iterator[tuple[AgentSpec, ToolRule, str, Described]]:
    for agent in file.agents:
        for rule in agent.tools:
            for tool, described in tools.items():
                if fnmatchcase(tool, rule.pattern):
                    yield agent, rule, tool, described


def _misled(file: AgentsFile, tools: Mapping[str, Described]) -> Iterator[str]:
    for agent, rule, tool, described in _matches(file, tools):
        for name in sorted(expressions.names_in(rule.when or "True") - set(described.parameters)):
            key = ("agents", agent.name, "tools", rule.pattern, "confirm", "when")
            what = f"{tool} has no argument {name!r}, so a person is always asked"
            yield str(file.source.mistake(key, what, did_you_mean(name, described.parameters)))


def _overruling(file: AgentsFile, tools: Mapping[str, Described]) -> Iterator[str]:
    for agent, rule, tool, described in _matches(file, tools):
        if rule.is_explicit and described.declaration.confirm == "always":
            key = ("agents", agent.name, "tools", rule.pattern)
            yield str(file.source.mistake(key, f"lets {tool} run unconfirmed, which its author wants confirmed"))


def _reaching_nothing(file: AgentsFile) -> Iterator[str]:
    for agent in file.agents:
        rule = next((rule for rule in agent.tools if rule.pattern == "http_request"), None)
        if rule is not None and rule.verdict != "deny" and not agent.http.allow:
            key = ("agents", agent.name, "tools", "http_request")
            yield str(file.source.mistake(key, "reaches nothing", "name hosts under http.allow"))


def _idle(file: AgentsFile, known: list[str], prefixes: list[str]) -> list[str]:
    idle = [
        ("agents", agent.name, "tools", rule.pattern)
        for agent in file.agents
        for rule in agent.tools
        if not any(fnmatchcase(name, rule.pattern) for name in known)
        and not any(_may_match(rule.pattern, prefix) for prefix in prefixes)
    ]
    return [str(file.source.mistake(key, "matches no tool", did_you_mean(key[-1], known))) for key in idle]


def _may_match(pattern: str, prefix: str) -> bool:
    """Whether a pattern can match a name that begins with `prefix`."""
    literal = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return literal.startswith(prefix) or (literal != pattern and prefix.startswith(literal))


def _agents(source: YamlSource, shape: FileShape, prompts: dict[str, str]) -> tuple[AgentSpec, ...]:
    """The agents, of which each part is well and the whole may still make no sense."""
    found, mistakes = [], []
    for name, agent in shape.agents.items():
        try:
            found.append(_agent(name, agent, shape.defaults, prompts[name]))
        except ValidationError as error:
            mistakes += [source.mistake(("agents", name), wording(one)) for one in error.errors(include_url=False)]
    if mistakes:
        raise configuration_error(mistakes)
    return tuple(found)


def _agent(name: str, shape: AgentShape, defaults: DefaultsShape, prompt: str) -> AgentSpec:
    return AgentSpec(
        name=name,
        model=shape.model,
        identity=shape.identity,
        persona=shape.persona,
        system_prompt=prompt,
        limits=_laid_over(defaults.limits, shape.limits),
        confirmation=_laid_over(defaults.confirmation, shape.confirmation),
        on_busy=shape.on_busy,
        tools=tuple(_rule(pattern, rule) for pattern, rule in shape.tools.items()),
        http=shape.http,
    )


def _laid_over(below: Part, above: Part) -> Part:
    """`below`, changed in what the file says of `above` and in nothing that `above` only has by default."""
    return below.model_copy(update={name: getattr(above, name) for name in above.model_fields_set})


def _rule(pattern: str, rule: Literal["allow", "confirm", "deny"] | RuleShape) -> ToolRule:
    if isinstance(rule, str):
        return ToolRule(pattern=pattern, verdict=rule)
    return ToolRule(
        pattern=pattern,
        verdict="allow" if rule.confirm == "never" else "confirm",
        when=rule.confirm.when if isinstance(rule.confirm, WhenShape) else None,
        is_explicit=rule.confirm == "never",
        **{name: getattr(rule, name) for name in rule.model_fields_set - {"confirm"}},
    )


def _mcp_path(source: YamlSource, named: str | None) -> Path | None:
    path = source.path.parent / (named or MCP_FILE)
    if named is not None and not path.is_file():
        mend = did_you_mean(path.name, _names_in(path.parent)) or "write it, or remove the key"
        raise configuration_error([source.mistake(("mcp",), f"there is no file {path}", mend)])
    return path if path.is_file() else None


def _read_prompts(source: YamlSource, agents: Mapping[str, AgentShape]) -> dict[str, str]:
    prompts = {name: _read_prompt(source, name, agent.system_prompt) for name, agent in agents.items()}
    mistakes = [prompt for prompt in prompts.values() if isinstance(prompt, Mistake)]
    if mistakes:
        raise configuration_error(mistakes)
    return {name: prompt for name, prompt in prompts.items() if isinstance(prompt, str)}


def _read_prompt(source: YamlSource, agent: str, text: str) -> str | Mistake:
    if not text.endswith((".md", ".txt")) or "\n" in text:
        return text
    path = source.path.parent / text
    key: Key = ("agents", agent, "system_prompt")
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        return source.mistake(key, f"{path} is not UTF-8 text", "save it as UTF-8")
    except OSError as error:
        siblings = _names_in(path.parent)
        return source.mistake(key, f"{path} can't be read: {error.strerror}", did_you_mean(path.name, siblings))


def _names_in(folder: Path) -> Iterator[str]:
    return (path.name for path in folder.iterdir()) if folder.is_dir() else iter(())


def _unknown_alias(
    file: AgentsFile, agent: AgentSpec, known: list[str], unusable: Mapping[str, tuple[str, ...]]
) -> Mistake:
    key = ("agents", agent.name, "model")
    if agent.model in unusable:
        variables = " or ".join(unusable[agent.model])
        return file.source.mistake(key, f"no deployment of {agent.model!r} can be used", f"set {variables}")
    mend = did_you_mean(agent.model, [*known, *unusable]) or f"it has {', '.join(map(repr, known)) or 'none'}"
    return file.source.mistake(key, f"{file.models_path} has no alias {agent.model!r}", mend)
