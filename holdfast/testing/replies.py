"""What a scripted provider can be told to do with a request, in whichever format it comes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Text:
    """Answer with a text. `usage=False`: without saying what it took, as some providers do."""

    text: str
    usage: bool = True


@dataclass(frozen=True)
class ToolCalls:
    """Ask for tools: each call a name and its arguments, as a dict or as raw text, which may be broken.

    `ids`: one for each call; None leaves it out, as some providers do. By default `call_1`, `call_2`, …
    `as_objects`: in OpenAI's format too, arguments go out as JSON objects instead of text, as some servers send them.
    """

    calls: Sequence[tuple[str, dict[str, Any] | str]]
    text: str = ""
    ids: Sequence[str | None] | None = None
    usage: bool = True
    as_objects: bool = False


@dataclass(frozen=True)
class HttpError:
    """Answer with an error, such as 429 with `retry-after`, or 500."""

    status: int
    message: str = "as the script says"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hang:
    """Answer nothing, until the provider lets go of it, or the client goes away."""


@dataclass(frozen=True)
class Slow:
    """Wait before answering; not to the end if the provider lets go of it."""

    reply: "Reply"
    seconds: float


@dataclass(frozen=True)
class Cut:
    """Send the first `after` bytes of an answer's body, by default half of them, and drop the connection.

    The length that is announced is that of the whole, so no client can take the part for it.
    """

    reply: Text | ToolCalls | str
    after: int | None = None


@dataclass(frozen=True)
class EndsEarly:
    """Send the first `after` events of a stream, and end it as if that were all. What is not streamed is whole."""

    reply: Text | ToolCalls
    after: int


@dataclass(frozen=True)
class Stalls:
    """Send the first `after` events of a stream, and the others once the provider lets go of it.

    What is not streamed has no events: all of it waits. `ends`: the others never come; the stream just ends then.
    """

    reply: Text | ToolCalls
    after: int
    ends: bool = False


@dataclass(frozen=True)
class Dribble:
    """Send an answer one byte at a time."""

    reply: Text | ToolCalls


@dataclass(frozen=True)
class Garbage:
    """Answer 200 with something that is not an answer."""

    body: bytes = b"<html><body>Bad gateway</body></html>"
    media_type: str = "text/html"


@dataclass(frozen=True)
class EmptyChoices:
    """Answer 200 with no choices in it; in other formats than OpenAI's, with an answer that says nothing."""


Reply = Text | ToolCalls | HttpError | Hang | Slow | Cut | EndsEarly | Stalls | Dribble | Garbage | EmptyChoices
