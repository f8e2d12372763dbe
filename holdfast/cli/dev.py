"""`holdfast dev`: everything on this machine, with embedded defaults."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.agents_file import EXAMPLE, AgentsOption, agents_file
from holdfast.cli.output import program

if TYPE_CHECKING:
    from holdfast.dev.stack import Options, Running


def dev(
    data: Annotated[Path, typer.Option(envvar="HOLDFAST_DATA", help="Where the state is kept.")] = Path(".holdfast"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="The API's port.")] = 8000,
    temporal_port: Annotated[int, typer.Option(min=1, max=65535, help="Temporal's port.")] = 7233,
    temporal_ui_port: Annotated[int, typer.Option(min=1, max=65535, help="The Temporal UI's port.")] = 8233,
    agents: AgentsOption = None,
    verbose: Annotated[bool, typer.Option(help="Show the logs of worker and API.")] = False,
) -> None:
    """Run PostgreSQL, Temporal, the worker and the API on this machine, without Docker and without an API key."""
    import asyncio

    from holdfast.dev.stack import Options

    options = Options(data, agents_file(agents), port, temporal_port, temporal_ui_port, verbose)
    asyncio.run(_run_until_stopped(options))
    typer.echo("stopped; everything is kept, and resumes at the next start")


async def _run_until_stopped(options: "Options") -> None:
    import asyncio
    import contextlib
    import signal

    from holdfast.dev import stack

    running = asyncio.create_task(stack.run(options, typer.echo, lambda found: _greet(found, options)))

    def stop() -> None:
        if running.cancelling():
            # Said twice: it is at it.
            return
        running.cancel()
        with contextlib.suppress(OSError):
            typer.echo("stopping; a tool that runs has five seconds to end")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # The terminal was closed, and nobody said `nohup`: the children have sessions of their own, and would go on.
        numbers.append(signal.SIGHUP)
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await running
    except asyncio.CancelledError:
        return


def _greet(running: "Running", options: "Options") -> None:
    models = ", ".join(running.models) or "the demo model, since no provider's key is set (try OPENAI_API_KEY=…)"
    first, *rest = _suggestions(running, options)
    for name, value in (
        ("models", models),
        ("API", f"{running.url}/docs"),
        ("Temporal UI", f"{running.temporal_ui_url} (to have payloads opened there: {running.url}/codec/sign-in)"),
        ("key (tenant dev)", running.key),
        ("logs", options.data / "logs"),
        ("try", first),
        *(("then", suggestion) for suggestion in rest),
    ):
        typer.echo(f"{name:17} {value}")


def _suggestions(running: "Running", options: "Options") -> list[str]:
    here = "" if options.data == Path(".holdfast") else f"HOLDFAST_DATA={options.data} "
    command = f"{here}{program()}"
    if options.agents == EXAMPLE:
        return [f'{command} chat support "where is order 1042?"', f'{command} chat support "refund order 1042"']
    return [f"{command} chat {running.agents[0]}", f"{command} runs list"]
