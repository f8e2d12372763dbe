"""A JSON file. Its mistakes are told by key: no parser at hand says on which line a value stands."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.config.messages import Key, Mistake, configuration_error


@dataclass(frozen=True)
class JsonSource:
    """What a file says (`data`). Its repr shows the path only: the data may hold secrets."""

    path: Path
    data: Any = field(repr=False)

    def mistake(self, key: Key, what: str, mend: str = "") -> Mistake:
        """Something wrong at a key of this file."""
        return Mistake(str(self.path), what, mend, key=key)


class _DuplicateKey(Exception):
    """A mapping says a key twice."""


def read_json(path: Path) -> JsonSource:
    """Read a file of one JSON value.

    Raises:
        ConfigurationError: it can't be read, is not JSON, or says a key twice.
    """
    line: int | None = None
    try:
        return JsonSource(path, json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_mapping))
    except OSError as error:
        what, mend = f"can't be read: {error.strerror}", ""
    except UnicodeDecodeError:
        what, mend = "is not UTF-8 text", "save it as UTF-8"
    except json.JSONDecodeError as error:
        # Only its sentence, never the text around the place: that may hold a secret.
        line, what, mend = error.lineno, f"not JSON: {error.msg}", "look at the commas and the quotes there"
    except _DuplicateKey as error:
        what, mend = f"says the key {error.args[0]!r} twice", "remove one"
    except (RecursionError, ValueError):
        what, mend = "is nested too deeply, or holds a malformed number", ""
    # Outside of `except`: a traceback would otherwise show the parser's error, which holds the whole text.
    raise configuration_error([Mistake(str(path), what, mend, line)])


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise _DuplicateKey(name)
    return dict(pairs)
