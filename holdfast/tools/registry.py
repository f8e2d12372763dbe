"""Tools by name: each a plain typed function, its JSON Schema made from its signature and docstring."""

import importlib
import inspect
import json
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from holdfast.domain.confirmations import canonical_digest
from holdfast.domain.errors import ConfigurationError
from holdfast.domain.tools import DECLARATION_ATTRIBUTE, Declaration, Idempotency

#: A parameter of this name is ours to fill, the same for each repeat of a call; the model never sees it.
KEY_PARAMETER = "idempotency_key"

#: What OpenAI and Anthropic take as a function's name, as far as Python can name one.
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")


class ArgumentsRefused(Exception):
    """The arguments don't fit the tool's schema; the text says why, for the model."""


@dataclass(frozen=True)
class Tool:
    """A function as a tool. Made by `tool_from_function`."""

    name: str
    description: str
    function: Callable[..., Any]
    arguments: type[BaseModel]
    declaration: Declaration
    takes_key: bool

    @property
    def idempotency(self) -> Idempotency:
        return self.declaration.idempotency or (Idempotency.KEY if self.takes_key else Idempotency.NONE)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments."""
        return self.arguments.model_json_schema()

    @cached_property
    def schema_digest(self) -> str:
        """Changes when the schema does; part of what a person confirms."""
        return canonical_digest(self.schema)

    @cached_property
    def as_function(self) -> dict[str, Any]:
        """The tool in OpenAI's form."""
        function = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": function}

    def parse(self, raw: str) -> dict[str, Any]:
        """The model's arguments as validated JSON, with defaults filled in: what is confirmed, and what runs.

        Raises:
            ArgumentsRefused: they are not JSON, or don't fit the schema.
        """
        try:
            values = json.loads(raw) if raw.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ArgumentsRefused(f"the arguments are not valid JSON: {error}") from error
        try:
            dumped: dict[str, Any] = self.arguments.model_validate(values).model_dump(mode="json", by_alias=True)
            # Shown here, and not at the moment a person is asked: NaN or an integer beyond 2**53 has no canonical form.
            canonical_digest(dumped)
        except ValidationError as error:
            raise ArgumentsRefused(f"the arguments don't fit the tool's schema: {_explain(error)}") from error
        except (ValueError, RecursionError) as error:
            raise ArgumentsRefused(f"the arguments can't be taken: {error}") from error
        return dumped


def tool_from_function(function: Callable[..., Any]) -> Tool:
    """Make a tool of a plain typed function: its name, docstring and signature become name, description and schema.

    Raises:
        ConfigurationError: a parameter has no type, one that has no schema, or a name that can't be taken.
    """
    name = getattr(function, "__name__", repr(function))
    if not _NAME.fullmatch(name):
        # One such name, and a provider refuses every request of each agent that is offered the tool.
        raise ConfigurationError(f"tool {name}: a tool's name is at most 64 letters (a to z), digits and underscores")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        # Called, it would have done nothing yet.
        raise ConfigurationError(f"tool {name}: yields its result; return it, as a list for instance")
    parameters = inspect.signature(function).parameters
    declaration: Declaration = getattr(function, DECLARATION_ATTRIBUTE, Declaration())
    takes_key = KEY_PARAMETER in parameters
    if declaration.idempotency is Idempotency.KEY and not takes_key:
        raise ConfigurationError(f"tool {name}: idempotency 'key' needs a parameter {KEY_PARAMETER}: str")
    return Tool(
        name=name,
        description=inspect.getdoc(function) or name.replace("_", " "),
        function=function,
        arguments=_arguments_model(name, function, parameters.values()),
        declaration=declaration,
        takes_key=takes_key,
    )


def _arguments_model(
    name: str, function: Callable[..., Any], parameters: Iterable[inspect.Parameter]
) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigurationError(f"tool {name}: {error}") from error
    for parameter in parameters:
        if parameter.name == KEY_PARAMETER:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ConfigurationError(f"tool {name}: parameter {parameter.name!r} must be one that can be named")
        if parameter.name not in hints:
            raise ConfigurationError(f"tool {name}: parameter {parameter.name!r} has no type; give it one")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    try:
        model = _model(name, fields)
        model.model_json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError, ValueError) as error:
        raise ConfigurationError(f"tool {name}: {str(error).splitlines()[0]}") from error
    # What pydantic keeps for itself, such as `_private` and `model_config`, would silently never be filled.
    for unusable in fields.keys() - model.__pydantic_fields__.keys():
        raise ConfigurationError(f"tool {name}: no parameter can be called {unusable!r}; choose another name")
    return model


def _model(name: str, fields: dict[str, Any]) -> type[BaseModel]:
    # NaN stays NaN, which is then refused; by default it would become null, and no person would have confirmed that.
    config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")
    with warnings.catch_warnings():
        # A parameter may well be called `schema` or `json`; that it hides a method of the model disturbs nobody.
        warnings.filterwarnings("ignore", "Field name .* shadows an attribute", UserWarning)
        model: type[BaseModel] = create_model(name, __config__=config, **fields)
    return model


def _explain(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'arguments'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False, include_context=False)
    )


class ToolRegistry:
    """The tools of an installation."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if tool.name in self._tools:
                raise ConfigurationError(f"tool {tool.name}: defined twice; tool names must differ")
            self._tools[tool.name] = tool

    @classmethod
    def from_modules(cls, names: Iterable[str]) -> "ToolRegistry":
        """Import modules and take their public functions: those defined there whose name has no leading underscore.

        Raises:
            ConfigurationError: a module can't be imported, or a function can't be a tool.
        """
        return cls(tool_from_function(function) for name in names for function in _functions(_import(name)))

    def get(self, name: str) -> Tool | None:
        """The tool of this name; None: there is none."""
        return self._tools.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def matching(self, patterns: Iterable[str]) -> list[Tool]:
        """The tools whose name matches one of the patterns."""
        wanted = list(patterns)
        return [tool for tool in self._tools.values() if any(fnmatchcase(tool.name, pattern) for pattern in wanted)]


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a tool's module is the user's code: whatever it raises is a mistake to be named
        raise ConfigurationError(
            f"tools: module {name!r} can't be imported: {type(error).__name__}: {error}"
        ) from error


def _functions(module: ModuleType) -> list[Callable[..., Any]]:
    return [
        function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    ]
