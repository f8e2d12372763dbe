"""Taking secrets out of texts: those that this process knows, and what looks like one.

What a process knows is one list for the whole process, as its log is one: settings and configuration files add to it as
they are read. It is asked before anything is logged, answered as an error, or stored of a tool's outcome.
"""

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

#: What stands in a secret's place.
REDACTED = "[redacted]"

#: A shorter value is no secret worth the name, and might be any word; so might a longer one of letters or digits alone,
#: such as the password `postgres`, which would go missing from every text.
_SHORTEST = 8
_SHORTEST_WORD = 16

#: The words in the names of variables, headers and settings whose values are secrets.
_SECRET_WORD = re.compile(
    r"auth(?:orization)?|bearer|cookie|credentials?|dsn|keys?|pat|pepper|private|pwd|secrets"
    r"|\w*(?:apikey|passphrase|passwd|password|secret|token)",
    re.IGNORECASE,
)

#: Ends of the names of what tells where a secret is, or what it is called, and is none itself.
_PLACES = ("_file", "_path", "_dir", "_sock", "_url", "_id")

#: Folders, as every shell names them: `pwd` is a password in other names only.
_FOLDERS = ("pwd", "oldpwd")

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

# The password of an address: postgresql://user:password@host. Only of a database may it hold a slash.
_ADDRESSES = (
    re.compile(r"(?P<kept>postgres(?:ql)?(?:\+\w+)?://[^\s:/@'\"]*:)(?P<password>[^\s@'\"]{1,200})(?=@)"),
    re.compile(r"(?P<kept>[a-zA-Z][a-zA-Z0-9+.-]{1,30}://[^\s:/@'\"]*:)(?P<password>[^\s/@'\"]{1,200})(?=@)"),
)

_PATTERNS = (
    *((address, rf"\g<kept>{REDACTED}") for address in _ADDRESSES),
    (
        re.compile(
            r"(?P<kept>\b(?:proxy-)?authorization\b['\"]?\s*[:=,]\s*(?:b?['\"])?(?:\w+\s+)?)[^\s'\",;{}\[\]]{4,}",
            re.IGNORECASE,
        ),
        rf"\g<kept>{REDACTED}",
    ),
    (
        re.compile(r"(?P<kept>\b(?:x-)?api[-_]key\b['\"]?\s*[:=,]\s*(?:b?['\"])?)[^\s'\",;{}\[\]]{8,}", re.IGNORECASE),
        rf"\g<kept>{REDACTED}",
    ),
    (re.compile(r"(?P<kept>\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\g<kept>{REDACTED}"),
    # API keys: our own, those of OpenAI and Anthropic and of whoever writes them alike, GitHub's, Slack's, AWS's.
    (re.compile(r"\bhf_[A-Za-z0-9_-]{16,}"), REDACTED),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), REDACTED),
    (
        re.compile(
            r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[A-Z0-9]{16})"
        ),
        REDACTED,
    ),
    # JSON Web Tokens.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]*"), REDACTED),
)


class _Known:
    """The secrets that this process knows, in each form in which one may stand in a text."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._forms: dict[str, None] = {}
        self._longest_first: tuple[str, ...] = ()

    def add(self, values: Iterable[str]) -> None:
        # In their order: the last is the newest.
        forms = dict.fromkeys(form for value in values if _is_telling(value) for form in _forms(value))
        if forms.keys() <= self._forms.keys():
            return
        self._forms |= forms
        if self._most is not None:
            self._forms = dict.fromkeys(list(self._forms)[-self._most :])
        # One secret may begin with another.
        self._longest_first = tuple(sorted(self._forms, key=len, reverse=True))

    def replace(self, text: str) -> str:
        # A pattern of them all would be slower by far: a text may be a megabyte, and they may be hundreds.
        for form in self._longest_first:
            if form in text:
                text = text.replace(form, REDACTED)
        return text


_known = _Known()

#: Of secrets without number, such as those of tenants, the newest: looking for each in every line takes its time.
_recent = _Known(most=200)


def learn(*values: str | None) -> None:
    """Remember secrets, to be taken out of every text from now on. Any word or number is none."""
    _known.add(value for value in values if value)


def learn_recent(*values: str) -> None:
    """Remember secrets of which there may be any number, until there are too many newer ones."""
    _recent.add(values)


def learn_named(values: Iterable[tuple[str, str]]) -> None:
    """Remember the values, of pairs of a name and a value, that are secrets by their names or hold a password."""
    for name, value in values:
        if (password := password_of(value)) is not None:
            # As it is written, and as it is meant.
            learn(password, unquote(password))
        if is_secret_name(name):
            # Of `Bearer abc`, what follows the scheme.
            learn(value, value.rpartition(" ")[2])


def is_secret_name(name: str) -> bool:
    """Whether what has such a name is a secret: `OPENAI_API_KEY`, `x-auth-token`."""
    if name.lower().endswith(_PLACES) or name.lower() in _FOLDERS:
        return False
    return any(_SECRET_WORD.fullmatch(word) for word in _WORD.findall(name))


def password_of(url: str) -> str | None:
    """The password in an address, as it is written; None when there is none."""
    found = next((found for address in _ADDRESSES if (found := address.search(url))), None)
    return found["password"] if found else None


def without_known_secrets(text: str) -> str:
    """A text without the secrets that this process knows. For what is content: what only looks like one, stays."""
    return _recent.replace(_known.replace(text))


def redacted(text: str) -> str:
    """A text without the secrets that this process knows, and without what looks like one. For logs and errors."""
    text = without_known_secrets(text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _is_telling(value: str) -> bool:
    is_word = value.isalpha() or value.isdigit()
    return len(value) >= (_SHORTEST_WORD if is_word else _SHORTEST)


def _forms(value: str) -> set[str]:
    # As it is; as a part of an address; as a part of JSON, and as Python shows it.
    return {
        value,
        quote(value, safe=""),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
    }
