"""How a mistake in the configuration is told: one line that names the place, what is wrong, and the mend."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from holdfast.domain.errors import ConfigurationError

#: The way to a value in a file: keys of mappings, and positions in lists.
Key = tuple[str | int, ...]

#: More lines than this help nobody; the first are mended first.
_MOST_LINES = 10


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong. `place` is a file or a variable; as text it is one line."""

    place: str
    what: str
    mend: str = ""
    line: int | None = None
    key: Key = ()

    def __str__(self) -> str:
        place = self.place if self.line is None else f"{self.place}:{self.line}"
        what = f"{self.what}; {self.mend}" if self.mend else self.what
        return ": ".join(part for part in (place, dotted(self.key), what) if part)


def dotted(key: Key) -> str:
    """A key's path as it is shown: `agents.support.tools`, `model_list[0].model_name`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """`did you mean 'quality'?` for the candidate closest to `word`; empty when none is close."""
    close = get_close_matches(word, list(candidates), n=1, cutoff=0.75)
    return f"did you mean {close[0]!r}?" if close else ""


def configuration_error(mistakes: Sequence[Mistake]) -> ConfigurationError:
    """The error that tells of them, a line each, from the top of the file downwards; of the eleventh on, the number."""
    in_order = sorted(mistakes, key=lambda mistake: mistake.line or 0)
    lines = [str(mistake) for mistake in in_order[:_MOST_LINES]]
    if len(in_order) > _MOST_LINES:
        lines.append(f"and {len(in_order) - _MOST_LINES} more")
    return ConfigurationError("\n".join(lines))
