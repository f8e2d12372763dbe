"""`agents.yaml`: the agents, their limits, and the policy of their tools."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, Discriminator, Field, Tag, WithJsonSchema, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from holdfast.config.messages import Key, Mistake, configuration_error, did_you_mean
from holdfast.config.shape import Shape, fit, tag
from holdfast.config.yaml_source import YamlSource, read_yaml
from holdfast.domain.agents import AgentSpec, ConfirmationDefaults, Deadline, Identity, Limits, ToolRule

_NAME_PATTERN: str = AgentSpec.model_json_schema()["properties"]["name"]["pattern"]
_DURATION_SCHEMA = {"type": "string", "pattern": r"^(\d+(ms|s|m|h|d))+$", "examples": ["90s", "10m", "24h", "1h30m"]}

#: The file of MCP servers, where `mcp` names none.
MCP_FILE = ".mcp.json"

Part = TypeVar("Part", bound=BaseModel)


def _agent_name(name: str) -> str:
    if not re.fullmatch(_NAME_PATTERN, name):
        raise ValueError(
            "an agent's name is lower-case letters, digits, '-' and '_', 63 at most, a letter or digit first"
        )
    return name


def _module_name(name: str) -> str:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"{name!r} is not the name of a module; write it like examples.shop.tools")
    return name


AgentName = Annotated[str, AfterValidator(_agent_name), WithJsonSchema({"type": "string", "pattern": _NAME_PATTERN})]
ModuleName = Annotated[str, AfterValidator(_module_name)]


class RuleShape(Shape):
    """A rule in its long form."""

    confirm: Literal["always", "never"] = Field(description="Whether a person must confirm each call.")
    deadline: Deadline | None = Field(default=None, description="How long a person has to decide.")
    on_deadline: Literal["reject"] | None = Field(default=None, description="What happens when nobody decides.")

    @model_validator(mode="after")
    def _has_no_deadline_without_confirmation(self) -> Self:
        if self.confirm == "never" and self.model_fields_set & {"deadline", "on_deadline"}:
            raise ValueError("deadline and on_deadline do nothing where confirm is 'never'; remove them")
        return self


_WORD, _MAPPING = tag("word"), tag("mapping")


def _form_of_rule(value: Any) -> str:
    return _MAPPING if isinstance(value, dict | RuleShape) else _WORD


Rule = Annotated[
    Annotated[Literal["allow", "confirm", "deny"], Tag(_WORD)] | Annotated[RuleShape, Tag(_MAPPING)],
    Discriminator(_form_of_rule),
]


class AgentShape(Shape):
    """One agent."""

    model: str = Field(min_length=1, description="An alias of the models file, such as quality.")
    identity: Identity | None = Field(default=None, description="The name the agent answers to, and its role.")
    persona: str = Field(default="", description="How it speaks.")
    system_prompt: str = Field(default="", description="The prompt, or the path of a .md or .txt file that holds it.")
    limits: Limits = Field(default=Limits(), description="What one message may take.")
    tools: dict[Annotated[str, Field(min_length=1)], Rule] = Field(
        default={},
        description="A tool's name, or a pattern with * and ?, and what the agent may do with it. Deny beats confirm "
        "beats allow; a tool that no rule names is denied.",
    )


class DefaultsShape(Shape):
    """What holds for every agent that does not say otherwise."""

    limits: Limits = Limits()
    confirmation: ConfirmationDefaults = ConfirmationDefaults()


class FileShape(Shape, title="Holdfast agents"):
    """The agents, their limits, and the policy of their tools."""

    version: Literal[1] = Field(description="The version of this format: 1.")
    models: str = Field(default="models.yaml", min_length=1, description="The models file, relative to this one.")
    tools: tuple[ModuleName, ...] = Field(default=(), description="Python modules whose functions are the tools.")
    mcp: str | None = Field(
        default=None,
        min_length=1,
        description="The file of MCP servers, relative to this one; by default .mcp.json, if there is one.",
    )
    defaults: DefaultsShape = DefaultsShape()
    agents: dict[AgentName, AgentShape] = Field(
        min_length=1, description="The agents, by name.", json_schema_extra={"additionalProperties": False}
    )


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
    return AgentsFile(
        path=path,
        models_path=path.parent / shape.models,
        tool_modules=shape.tools,
        mcp_path=_mcp_path(source, shape.mcp),
        agents=tuple(_agent(name, agent, shape.defaults, prompts[name]) for name, agent in shape.agents.items()),
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


def warnings(file: AgentsFile, tool_names: Iterable[str], later: Iterable[str] = ()) -> list[str]:
    """A line for each rule that can match nothing, because no tool has such a name.

    Args:
        file: the agents.
        tool_names: the tools that are known.
        later: what the names of those begin with that are not known yet, such as `mcp__github__`.
    """
    known, prefixes = list(tool_names), list(later)
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


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file, for editors."""
    return FileShape.model_json_schema(schema_generator=_EditorSchema)


class _EditorSchema(GenerateJsonSchema):
    """Durations as people write them here: pydantic's own schema asks for ISO 8601, and editors would mark `10m`."""

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        return dict(_DURATION_SCHEMA)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        # Defaults are told in the documentation; as a schema they would again be ISO 8601.
        return self.generate_inner(schema["schema"])


def _agent(name: str, shape: AgentShape, defaults: DefaultsShape, prompt: str) -> AgentSpec:
    return AgentSpec(
        name=name,
        model=shape.model,
        identity=shape.identity,
        persona=shape.persona,
        system_prompt=prompt,
        limits=_laid_over(defaults.limits, shape.limits),
        confirmation=defaults.confirmation,
        tools=tuple(_rule(pattern, rule) for pattern, rule in shape.tools.items()),
    )


def _laid_over(below: Part, above: Part) -> Part:
    """`below`, changed in what the file says of `above` and in nothing that `above` only has by default."""
    return below.model_copy(update={name: getattr(above, name) for name in above.model_fields_set})


def _rule(pattern: str, rule: Literal["allow", "confirm", "deny"] | RuleShape) -> ToolRule:
    if isinstance(rule, str):
        return ToolRule(pattern=pattern, verdict=rule)
    return ToolRule(
        pattern=pattern,
        verdict="confirm" if rule.confirm == "always" else "allow",
        deadline=rule.deadline,
        on_deadline=rule.on_deadline,
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
