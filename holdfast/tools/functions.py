"""Tools made of plain typed functions: the JSON Schema comes from the signature and the docstring."""

import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from holdfast.domain.errors import ConfigurationError
from holdfast.domain.tools import DECLARATION_ATTRIBUTE, Declaration, Idempotency
from holdfast.tools.registry import ArgumentsRefused, Tool

#: A parameter of this name is ours to fill, the same for each repeat of a call; the model never sees it.
KEY_PARAMETER = "idempotency_key"

#: What OpenAI and Anthropic take as a function's name, as far as Python can name one.
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")


def tools_of_modules(names: Iterable[str]) -> list[Tool]:
    """Import modules and take their public functions: those defined there whose name has no leading underscore.

    Raises:
        ConfigurationError: a module can't be imported, or a function can't be a tool.
    """
    return [tool_from_function(function) for name in names for function in _functions(_import(name))]


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
    model = _arguments_model(name, function, parameters.values())
    return Tool(
        name=name,
        description=inspect.getdoc(function) or name.replace("_", " "),
        schema=model.model_json_schema(),
        declaration=declaration,
        takes_key=takes_key,
        validate=partial(_validated, model),
        call=partial(_called, function, model, takes_key),
        is_async=inspect.iscoroutinefunction(function),
    )


def _validated(model: type[BaseModel], values: Any) -> dict[str, Any]:
    try:
        dumped: dict[str, Any] = model.model_validate(values).model_dump(mode="json", by_alias=True)
    except ValidationError as error:
        raise ArgumentsRefused(f"the arguments don't fit the tool's schema: {_explain(error)}") from error
    return dumped


def _called(
    function: Callable[..., Any], model: type[BaseModel], takes_key: bool, arguments: dict[str, Any], key: str
) -> Any:
    values = dict(model.model_validate(arguments))
    return function(**values, **({KEY_PARAMETER: key} if takes_key else {}))


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


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a tool's module is the user's code: whatever it raises is a mistake to be named
        # It, or the package that it is to be in; not something that it imports.
        is_missing = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
        mend = "; it must be below the folder that you stand in, or installed" if is_missing else ""
        raise ConfigurationError(
            f"tools: module {name!r} can't be imported: {type(error).__name__}: {error}{mend}"
        ) from error


def _functions(module: ModuleType) -> list[Callable[..., Any]]:
    return [
        function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    ]
