"""What PostgreSQL can hold: JSON has texts that it can't."""

from typing import Any

#: How deep a value may be nested. Deeper ones are made to break whoever walks them.
MAX_DEPTH = 32


def is_storable(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether a JSON value has no NUL and no lone surrogate in its texts, and is nested at most `depth` deep."""
    if isinstance(value, str):
        return "\x00" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict | list | tuple):
        parts = (*value.keys(), *value.values()) if isinstance(value, dict) else value
        return depth > 0 and all(is_storable(part, depth - 1) for part in parts)
    return True
