"""Which agents file a command reads: the one that is named, or what lies here."""

from pathlib import Path
from typing import Annotated

import typer

#: What `holdfast dev` runs in a clone of the repository.
EXAMPLE = Path("examples/shop/agents.yaml")

_OWN = Path("agents.yaml")
_VARIABLE = "HOLDFAST_AGENTS"
_HELP = "The agents file."
_ELSE = f"{_OWN}, else {EXAMPLE}"

AgentsOption = Annotated[Path | None, typer.Option("--agents", envvar=_VARIABLE, help=_HELP, show_default=_ELSE)]
AgentsArgument = Annotated[Path | None, typer.Argument(envvar=_VARIABLE, help=_HELP, show_default=_ELSE)]


def agents_file(named: Path | None) -> Path:
    """The file that is named; else one's own of this folder; else the example's, where there is only that."""
    if named is not None:
        return named
    return EXAMPLE if EXAMPLE.exists() and not _OWN.exists() else _OWN
