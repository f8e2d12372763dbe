"""Reading settings from the environment, and secrets from the files that it names."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from holdfast.config.messages import Mistake, configuration_error
from holdfast.config.settings import Settings, variable
from holdfast.config.shape import wording
from holdfast.secrecy.redaction import learn_named

Kind = TypeVar("Kind", bound=Settings)


def load_settings(kind: type[Kind]) -> Kind:
    """The settings of one process, from the environment.

    Args:
        kind: the class of what the process needs, such as `ApiSettings`.

    Raises:
        ConfigurationError: variables are missing or wrong; a line for each, and never its value.
    """
    secrets, mistakes = _read_files(kind)
    try:
        settings = kind(**secrets)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            mistakes.setdefault(variable(str(details["loc"][0])), _mistake(kind, details))
    # Outside of `except`: a traceback would otherwise show pydantic's error below ours.
    if mistakes:
        raise configuration_error(list(mistakes.values()))
    _learn_secrets(settings)
    return settings


def _learn_secrets(settings: Settings) -> None:
    """Have no log and no error of this process show the secrets among its settings."""
    for name in _secret_fields(type(settings)):
        value = getattr(settings, name)
        if value is not None:
            # Of keys, also each by itself.
            parts = (part.partition(":")[2] for part in value.get_secret_value().replace(",", " ").split())
            learn_named([(name, value.get_secret_value()), *((name, part) for part in parts)])


def _read_files(kind: type[Settings]) -> tuple[dict[str, Any], dict[str, Mistake]]:
    """The secrets that are given as files, by field; and what is wrong with those, by variable."""
    secrets: dict[str, Any] = {}
    mistakes: dict[str, Mistake] = {}
    for name in _secret_fields(kind):
        named = variable(name)
        path = os.environ.get(f"{named}_FILE")
        if not path:
            continue
        content = _read_file(named, path)
        if isinstance(content, Mistake):
            mistakes[named] = content
        else:
            secrets[name] = content
    return secrets, mistakes


def _read_file(named: str, path: str) -> str | Mistake:
    if os.environ.get(named):
        return Mistake(named, f"is set, and so is {named}_FILE", "unset one of them")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        return Mistake(f"{named}_FILE", f"{path} is not UTF-8 text")
    except OSError as error:
        return Mistake(f"{named}_FILE", f"{path} can't be read: {error.strerror}")


def _secret_fields(kind: type[Settings]) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        if SecretStr in (field.annotation, *get_args(field.annotation)):
            yield name


def _mistake(kind: type[Settings], details: ErrorDetails) -> Mistake:
    name = str(details["loc"][0])
    what = "is not set" if details["type"] == "missing" else wording(details)
    return Mistake(variable(name), what, f"set it to {kind.model_fields[name].description}")
