"""How the command line shows things: tables for people, `--json` for programs."""

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.domain.errors import InvalidInput

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(help="How many at most.", min=1, max=100)]


_GAP = "  "

#: No column of a table is made narrower than this, in characters; its lines are rather broken.
_LEAST = 8


def program() -> str:
    """How to call this program from here: its name where the shell finds it, its path where it would not."""
    called = Path(sys.argv[0])
    found = shutil.which(called.name)
    if found is not None and Path(found).resolve() == called.resolve():
        return called.name
    beside = os.path.relpath(called)
    return str(called) if beside.startswith("..") else beside


def show_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, or one line that says that there is nothing to show."""
    from rich.cells import cell_len
    from rich.console import Console

    if not rows:
        typer.echo(f"No {title}.")
        return
    # What a model or a user wrote is one line, and nothing that a terminal would obey.
    lines = [list(columns), *([escaped(" ".join(str(cell).split())) for cell in row] for row in rows)]
    widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
    console = Console()
    # A pipe has no width; what is cut for a terminal is whole for a program.
    if console.is_terminal:
        _narrow(widths, console.width)
    for line in lines:
        typer.echo(_GAP.join(map(_cut, line, widths)).rstrip())


def _narrow(widths: list[int], room: int) -> None:
    """Take from the widest columns until there is room; never from the first: an id is of use only whole."""
    while sum(widths) + len(_GAP) * (len(widths) - 1) > room:
        widest = max(range(len(widths)), key=lambda number: widths[number] if number else 0)
        if widest == 0 or widths[widest] <= _LEAST:
            return
        widths[widest] -= 1


def _cut(cell: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    return set_cell_size(cell, width) if cell_len(cell) <= width else f"{set_cell_size(cell, width - 1)}…"


def read_object(text: str) -> dict[str, Any]:
    """A JSON object that was given on the command line.

    Raises:
        InvalidInput: it is not one.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidInput("arguments", f"The arguments are not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput("arguments", 'The arguments must be a JSON object, like {"amount": 5}.')
    return value


def one_line(arguments: dict[str, Any] | None) -> str:
    """Arguments on one line, with nothing in them that a terminal would hide, turn round or obey."""
    return ", ".join(f"{escaped(name)}={as_json(value)}" for name, value in (arguments or {}).items())


def as_json(value: Any) -> str:
    """A value as JSON on one line, fit to be shown."""
    return escaped(json.dumps(value, ensure_ascii=False))


def escaped(text: str) -> str:
    """A text in which whatever can't be seen is written as an escape: what is shown is what there is."""
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def harmless(text: str) -> str:
    """A text of several lines that a terminal can be given: without what it would obey, or turn round."""
    return "".join(char if char in "\n\t" or not _is_control(char) else "\N{REPLACEMENT CHARACTER}" for char in text)


def _is_control(char: str) -> bool:
    return unicodedata.category(char) == "Cc" or "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"
