"""The shape of `agents.yaml`: every key of the file, with its description, and its JSON Schema for editors."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from holdfast.config.shape import Shape, tag
from holdfast.domain import expressions
from holdfast.domain.agents import (
    AgentSpec,
    ConfirmationDefaults,
    Deadline,
    Escalation,
    HttpAccess,
    Identity,
    Limits,
    OnBusy,
    OnDeadline,
    RoleName,
)
from holdfast.domain.tools import MAX_ATTEMPTS, Effect, Idempotency

_NAME_PATTERN: str = AgentSpec.model_json_schema()["properties"]["name"]["pattern"]
_DURATION_SCHEMA = {"type": "string", "pattern": r"^(\d+(ms|s|m|h|d))+$", "examples": ["90s", "10m", "24h", "1h30m"]}


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


_WORD, _MAPPING = tag("word"), tag("mapping")

AgentName = Annotated[str, AfterValidator(_agent_name), WithJsonSchema({"type": "string", "pattern": _NAME_PATTERN})]
ModuleName = Annotated[str, AfterValidator(_module_name)]


#: What says how a person is asked, and does nothing where nobody is.
_ASKING = {"deadline", "on_deadline", "remind_after", "escalate", "approvers", "four_eyes"}


def _expression(text: str) -> str:
    expressions.check(text)
    return text


class WhenShape(Shape):
    """A confirmation that depends on the arguments."""

    when: Annotated[str, AfterValidator(_expression)] = Field(
        description="An expression over the arguments, such as amount > 100; where it can't be told, a person is asked."
    )


def _form_of_confirm(value: Any) -> str:
    return _MAPPING if isinstance(value, dict | WhenShape) else _WORD


Confirm = Annotated[
    Annotated[Literal["always", "never"], Tag(_WORD)] | Annotated[WhenShape, Tag(_MAPPING)],
    Discriminator(_form_of_confirm),
]


class RuleShape(Shape):
    """A rule in its long form."""

    confirm: Confirm = Field(description="Whether a person must confirm each call: always, never, or when: EXPRESSION.")
    deadline: Deadline | None = Field(default=None, description="How long a person has to decide.")
    on_deadline: OnDeadline | None = Field(default=None, description="What happens when nobody decides.")
    remind_after: Deadline | None = Field(default=None, description="When people are reminded.")
    escalate: Escalation | None = Field(default=None, description="Whom else to ask at the deadline, and how long.")
    approvers: tuple[RoleName, ...] | None = Field(default=None, description="Roles that may decide; any by default.")
    four_eyes: bool | None = Field(default=None, description="Whoever asked for the run may not decide.")
    effect: Effect | None = Field(default=None, description="What the tool changes, if its author said no more.")
    idempotency: Idempotency | None = Field(default=None, description="What makes a second run of a call harmless.")
    timeout: Deadline | None = Field(default=None, description="When a call is cut.")
    attempts: int | None = Field(
        default=None,
        ge=1,
        le=MAX_ATTEMPTS,
        strict=True,
        description="How often a call that may be repeated is run.",
    )

    @model_validator(mode="after")
    def _asks_nobody_how_nobody_is_asked(self) -> Self:
        idle = sorted(self.model_fields_set & _ASKING)
        if self.confirm == "never" and idle:
            raise ValueError(f"nobody is asked where confirm is 'never'; remove {', '.join(idle)}")
        return self


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
    confirmation: ConfirmationDefaults = Field(
        default=ConfirmationDefaults(), description="What holds for each confirmation of this agent."
    )
    on_busy: OnBusy = Field(default=OnBusy.QUEUE, description="What a new message does to a busy conversation.")
    tools: dict[Annotated[str, Field(min_length=1)], Rule] = Field(
        default={},
        description="A tool's name, or a pattern with * and ?, and what the agent may do with it. Deny beats confirm "
        "beats allow; a tool that no rule names is denied.",
    )
    http: HttpAccess = Field(
        default=HttpAccess(),
        description="The hosts that the tool http_request may ask: api.example.com, *.example.org; a private one by "
        "its whole origin, http://10.0.0.5:8080.",
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
