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


def storable(text: str, limit: int) -> str:
    """Text as PostgreSQL can hold it, at most `limit` characters, with a note of what was cut."""
    clean = text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    return cut(clean, limit)


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of a text; where it was longer, a note says how much is missing."""
    return (
        text if len(text) <= limit else f"{text[:limit]}\n[cut: {len(text) - limit} of {len(text)} characters left out]"
    )
