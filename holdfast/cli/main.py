"""`holdfast`: the command line. Nothing heavy is imported at the top, so that `--help` answers in under a second."""

import sys
from typing import Annotated

import typer

from holdfast.cli import (
    agents,
    audit,
    budget,
    chat,
    check,
    confirmations,
    dev,
    doctor,
    erase,
    identities,
    keys,
    migrate,
    models,
    processes,
    provider_keys,
    runs,
    switches,
    tools,
    webhooks,
)
from holdfast.domain.errors import ConfigurationError, HoldfastError
from holdfast.secrecy import logs


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"holdfast {version('holdfast')}")
        raise typer.Exit


app = typer.Typer(
    name="holdfast",
    help="AI agents as durable workflows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _every(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """AI agents as durable workflows."""


app.command()(dev.dev)
app.command()(chat.chat)
app.add_typer(confirmations.app, name="confirmations")
app.add_typer(runs.app, name="runs")
app.add_typer(agents.app, name="agents")
app.add_typer(tools.app, name="tools")
app.add_typer(budget.app, name="budget")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(identities.app, name="identities")
app.add_typer(provider_keys.app, name="provider-keys")
app.add_typer(webhooks.app, name="webhooks")
app.command()(switches.stop)
app.command()(switches.lift)
app.command()(switches.switches)
app.command()(check.check)
app.command()(doctor.doctor)
app.command()(processes.api)
app.command()(processes.worker)
app.command()(processes.pool)
app.command()(migrate.migrate)
app.command()(erase.erase)


def run() -> None:
    """The console script: errors of ours are one line and a non-zero exit, never a traceback."""
    logs.guard()
    try:
        app()
    except ConfigurationError as error:
        _end(str(error), 2)
    except HoldfastError as error:
        _end(str(error), 1)


def _end(line: str, code: int) -> None:
    sys.stderr.write(f"{line}\n")
    sys.exit(code)
