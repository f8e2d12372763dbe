"""Text between Slack and us. What a person or a model wrote never becomes a mention, a link or a format in Slack."""

import re

#: The longest text of a message; what is longer is cut by Slack without a word.
MAX_TEXT = 40_000

_LINK = re.compile(r"<(?P<target>[^<>|]+)(?:\|(?P<label>[^<>]*))?>")
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))

_FENCE = re.compile(r"(```.*?(?:```|\Z))", re.DOTALL)
_LANGUAGE = re.compile(r"\A```[\w+#.-]+\n")
# Each match looks no further than the next mark of its kind: a model must not hold up the worker with marks that open.
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*)$", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=\S)([^*\n]+)(?<=\S)\*\*")
_STRUCK = re.compile(r"~~(?=\S)([^~\n]+)(?<=\S)~~")
_BULLET = re.compile(r"^([ \t]*)[*+-][ \t]+", re.MULTILINE)
_LABELLED = re.compile(r"!?\[([^\[\]]+)\]\(([^\s\[\]]+?)\)")


def escaped(text: str) -> str:
    """Text as Slack shows it, and does not read it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def as_plain(text: str, app_user: str) -> str:
    """What a person wrote, without Slack's notation, and without the mention of the app itself."""
    if app_user:
        text = _mentions(app_user).sub(" ", text)
    text = _LINK.sub(_plain_link, text)
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return text.strip()


def names(text: str, app_user: str) -> bool:
    """Whether a text mentions the app."""
    return bool(app_user) and _mentions(app_user).search(text) is not None


def _mentions(user: str) -> re.Pattern[str]:
    return re.compile(rf"<@{re.escape(user)}(?:\|[^<>]*)?>")


def _plain_link(found: re.Match[str]) -> str:
    target, label = found["target"], found["label"]
    if target[0] in "@#!":
        # A person, a channel or a group: its name where Slack gives one.
        return f"{target[0]}{label}" if label and target[0] != "!" else label or target
    return f"{label} ({target})" if label and label not in target else target


def as_mrkdwn(markdown: str) -> str:
    """A model's markdown in Slack's own notation. A link shows where it leads, whatever its words say."""
    return "".join(_fenced(part) if part.startswith("```") else _converted(part) for part in _FENCE.split(markdown))


def cut(text: str, limit: int, note: str) -> str:
    """A text that is already escaped, within a limit; cut, it says so with a note."""
    if len(text) <= limit:
        return text
    kept = text[: limit - len(note)]
    # Not in the middle of an entity.
    tail = kept.rfind("&")
    return (kept[:tail] if tail >= 0 and ";" not in kept[tail:] else kept) + note


def _fenced(code: str) -> str:
    return escaped(_LANGUAGE.sub("```\n", code))


def _converted(text: str) -> str:
    text = _BULLET.sub(r"\1• ", escaped(text))
    text = _HEADING.sub(_shown_heading, text)
    text = _BOLD.sub(r"*\1*", text)
    text = _STRUCK.sub(r"~\1~", text)
    return _LABELLED.sub(_shown_link, text)


def _shown_heading(found: re.Match[str]) -> str:
    return f"*{found[1].rstrip().rstrip('#').rstrip().replace('**', '') or found[1]}*"


def _shown_link(found: re.Match[str]) -> str:
    return found[2] if found[1] == found[2] else f"{found[1]} ({found[2]})"
