"""Fits what a file says into a pydantic model, and tells each misfit by its file, line and key.

pydantic says where a value doesn't fit (`loc`) but not on which line, and says it in the words of Python's types; the
reader of these messages wrote YAML or JSON.
"""

from collections.abc import Iterator
from inspect import isclass
from typing import Any, Protocol, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from holdfast.config.messages import Key, Mistake, configuration_error, did_you_mean

Model = TypeVar("Model", bound=BaseModel)

#: pydantic's kinds of error in our words; the rest keep pydantic's, with "must be" for "Input should be".
_WORDS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than_equal": "must be at most {le}",
    "invalid_key": "a key must be text",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_type": "must be a mapping",
    "string_type": "must be text",
    "time_delta_parsing": "must be a duration like 90s, 10m, 24h or 1h30m",
    "time_delta_type": "must be a duration like 90s, 10m, 24h or 1h30m",
    "tuple_type": "must be a list",
    "value_error": "{error}",
}


class Source(Protocol):
    """A file that was read: what it says, and how a mistake in it is told."""

    @property
    def data(self) -> Any: ...

    def mistake(self, key: Key, what: str, mend: str = "") -> Mistake: ...


class Shape(BaseModel):
    """Base of the models of a file: an unknown key is a mistake, and no error quotes the input."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class OpenShape(BaseModel):
    """The same for a file whose form is not ours: unknown keys are kept, for a warning or for whom they concern."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)


def fit(source: Source, model: type[Model], data: Any = None) -> Model:
    """What the file says, as a `model`.

    Args:
        source: tells the mistakes, and gives the data unless that is given apart.
        model: what it must be.
        data: the file's data after variables were put in, with the keys where they were.

    Raises:
        ConfigurationError: it doesn't fit; a line for each misfit.
    """
    try:
        return model.model_validate(source.data if data is None else data)
    except ValidationError as error:
        mistakes = [_mistake(source, model, details) for details in error.errors(include_url=False)]
    # Outside of `except`: a traceback would otherwise show pydantic's error below ours.
    raise configuration_error(mistakes)


def wording(details: ErrorDetails) -> str:
    """pydantic's error in plain words. Never quotes the value, except where a validator of ours does."""
    kind = details["type"]
    if kind in _WORDS:
        return _WORDS[kind].format(**details.get("ctx", {}))
    if kind in ("string_too_short", "too_short"):
        least = details["ctx"]["min_length"]
        return "is empty" if least == 1 else f"must have at least {least} characters"
    if kind == "greater_than":
        return "must be more than 0"
    return details["msg"].replace("Input should be", "must be")


def tag(name: str) -> str:
    """A name for a branch of a union, marked so that it is not shown as if it were a key of the file."""
    return f"<{name}>"


def _mistake(source: Source, model: type[BaseModel], details: ErrorDetails) -> Mistake:
    # `[key]` is pydantic's mark for "the key itself".
    key = tuple(part for part in details["loc"] if part != "[key]" and not str(part).startswith("<"))
    if details["type"] == "extra_forbidden":
        word, known = str(key[-1]), _known_keys(model, key[:-1])
        mend = did_you_mean(word, known) or f"known here: {', '.join(known)}"
        return source.mistake(key, f"unknown key {word!r}", mend)
    return source.mistake(key, *_what_and_mend(details))


def _what_and_mend(details: ErrorDetails) -> tuple[str, str]:
    value, kind = details["input"], details["type"]
    if kind == "missing":
        return wording(details), "add it"
    if kind == "invalid_key":
        return wording(details), "put it in quotes"
    if value is None:
        return "has no value", "give it one, or remove the key"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return wording(details), "put it in quotes"
    if kind == "literal_error" and isinstance(value, str):
        choices = details["ctx"]["expected"].replace(" or ", ", ").split(", ")
        return wording(details), did_you_mean(value, [choice.strip("'") for choice in choices])
    return wording(details), ""


def _known_keys(model: type[BaseModel], key: Key) -> list[str]:
    annotations: list[Any] = [model]
    for part in key:
        annotations = [inner for outer in annotations for inner in _inside(outer, part)]
    return [name for annotation in annotations for found in _models(annotation) for name in found.model_fields]


def _inside(annotation: Any, part: str | int) -> Iterator[Any]:
    """The types that stand below `part` in a value of this type."""
    for model in _models(annotation):
        if part in model.model_fields:
            yield model.model_fields[str(part)].annotation
    for container in _containers(annotation):
        yield get_args(container)[1 if get_origin(container) is dict else 0]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) not in (dict, list, tuple):
        for choice in get_args(annotation):
            yield from _models(choice)


def _containers(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (dict, list, tuple):
        yield annotation
    else:
        for choice in get_args(annotation):
            yield from _containers(choice)
