"""What `holdfast chat` shows of a run: at a terminal as it happens, and into a pipe the reply alone."""

from typing import TYPE_CHECKING, Protocol

import typer

from holdfast.cli.following import Told
from holdfast.cli.output import escaped, harmless

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

#: How much of a text that is being written is shown, in characters: it stands there whole when it is written.
_PREVIEW = 8_000

_BESIDE_THE_PREVIEW = 4  # lines of the terminal

#: What a run does from an event on, where another is not said.
_DOES = {
    "run.queued": "waits for its turn",
    "message.reset": "begins again",
    "tool_call.proposed": "thinks",
    "confirmation.requested": "waits for a person",
}


class Screen(Protocol):
    """Where a run is shown."""

    def begin(self, doing: str) -> None:
        """A run is followed from here on."""

    def show(self, told: Told) -> None:
        """Show what happened."""

    def note(self, doing: str | None) -> None:
        """Say what is waited for; None: for what was waited for before."""

    def say(self, line: str) -> None:
        """Say something beside the run."""

    def end(self) -> None:
        """No run is followed, or a person is asked."""


class Plain:
    """For a pipe, a file, or a program: the reply, when there is one."""

    def __init__(self) -> None:
        self._reply = ""

    def begin(self, doing: str) -> None:
        return

    def show(self, told: Told) -> None:
        if told.type == "message.completed":
            self._reply = told.data["text"]
        elif told.is_last and told.type != "run.merged":
            typer.echo(self._reply or f"({told.type.removeprefix('run.')})")

    def note(self, doing: str | None) -> None:
        return

    def say(self, line: str) -> None:
        typer.echo(line, err=True)

    def end(self) -> None:
        self._reply = ""


class Terminal:
    """For a person: text while it is written, and what goes on meanwhile.

    What is not certain yet stands in a region of its own, which disappears: a text that is taken back is gone, and one
    that is whole stays, as it is stored.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        self._console = Console(highlight=False)
        self._spinner = Spinner("dots")
        self._doing = self._noted = ""
        self._text = ""
        self._attempt: int | None = None
        self._live = Live(console=self._console, transient=True, refresh_per_second=10, get_renderable=self._uncertain)

    def begin(self, doing: str) -> None:
        self._doing = doing
        self._live.start()

    def end(self) -> None:
        self._live.stop()

    def note(self, doing: str | None) -> None:
        self._noted = doing or ""

    def say(self, line: str) -> None:
        from rich.text import Text

        self._console.print(Text(harmless(line), style="dim"))

    def show(self, told: Told) -> None:
        if told.type == "message.delta":
            return self._add(told.data["attempt"], told.data["text"])
        if told.type in ("message.completed", "message.reset"):
            self._text = ""
        if told.type == "message.completed":
            self._console.print(_markdown(told.data["text"]))
        if (line := _line(told)) is not None:
            self.say(line)
        is_running = told.type == "tool_call.started"
        self._doing = f"runs {escaped(told.data['tool'])}" if is_running else _DOES.get(told.type, "thinks")

    def _add(self, attempt: int, text: str) -> None:
        if attempt != self._attempt:
            self._attempt, self._text = attempt, ""
        self._text += text

    def _uncertain(self) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        self._spinner.update(text=Text(self._noted or self._doing, style="dim"))
        return Group(_Preview(self._text), self._spinner) if self._text else self._spinner


class _Preview:
    """The end of a text, as much of it as the terminal has room for."""

    def __init__(self, text: str) -> None:
        self._text = text[-_PREVIEW:]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.segment import Segment

        lines = console.render_lines(_markdown(self._text), options.update(height=None), pad=False)
        for line in lines[-max(1, console.height - _BESIDE_THE_PREVIEW) :]:
            yield from line
            yield Segment.line()


def _markdown(text: str) -> "RenderableType":
    from rich.markdown import Markdown

    # Not as a hyperlink: where it leads would be hidden behind what it says.
    return Markdown(harmless(text), hyperlinks=False)


def _line(told: Told) -> str | None:
    """What stays to be read of an event; None: nothing."""
    noun, _, what = told.type.partition(".")
    if noun == "tool_call" and what not in ("proposed", "started"):
        return f"  {escaped(told.data['tool'])}: {what}{_because(told.data.get('error'))}"
    if what == "decided":
        return f"  {told.data['decision']}{_because(told.data['reason'])}"
    if noun == "confirmation" and what in ("expired", "withdrawn"):
        return f"  {what}: nobody is asked any more"
    if what in ("failed", "cancelled"):
        return f"({what}{_because(told.data['error'])})"
    return None


def _because(why: str | None) -> str:
    return f": {escaped(why)}" if why else ""
