"""The operations of the API, as it documents them, without one that runs."""

import functools
import json
from types import SimpleNamespace
from typing import Any, cast

from api.app import create_app
from api.wiring import Services

Schema = dict[str, Any]

#: Those that need no key.
PUBLIC = [("GET", "/livez"), ("GET", "/readyz")]


def schema() -> Schema:
    """`/openapi.json`, with the model pool."""
    found: Schema = json.loads(_document())
    return found


@functools.cache
def _document() -> str:
    services = SimpleNamespace(models=True, slack=None, access=SimpleNamespace(hosts=()), temporal_ui_url=None)
    return json.dumps(create_app(cast(Services, services)).openapi())


def operations() -> list[tuple[str, str]]:
    """Each operation: its method and its path."""
    return [(method.upper(), path) for path, methods in schema()["paths"].items() for method in methods]
