"""What a scripted provider can be told to do with a request."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Text:
    """Answer with a text."""

    text: str


@dataclass(frozen=True)
class ToolCalls:
    """Ask for tools: each call a name and its arguments, as a dict or as raw text, which may be broken.

    `ids`: one for each call; None leaves it out, as some providers do. By default `call_1`, `call_2`, …
    """

    calls: Sequence[tuple[str, dict[str, Any] | str]]
    text: str = ""
    ids: Sequence[str | None] | None = None


@dataclass(frozen=True)
class HttpError:
    """Answer with an error, such as 429 with `retry-after`, or 500."""

    status: int
    message: str = "as the script says"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hang:
    """Answer nothing, until the provider is stopped or reset, or the client goes away."""


@dataclass(frozen=True)
class Cut:
    """Send the first half of an answer, and drop the connection."""

    text: str


@dataclass(frozen=True)
class Garbage:
    """Answer 200 with something that is not an answer."""

    body: bytes = b"<html><body>Bad gateway</body></html>"


@dataclass(frozen=True)
class EmptyChoices:
    """Answer 200 with no choices in it."""


Reply = Text | ToolCalls | HttpError | Hang | Cut | Garbage | EmptyChoices
