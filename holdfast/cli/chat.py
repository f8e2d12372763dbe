"""`holdfast chat`: talk to an agent at the terminal; asks when a tool needs a confirmation."""

import contextlib
import os
import sys
from collections import deque
from typing import Annotated, Any

import typer

from holdfast.cli.asking import Answer, Later, Prompt, Unclear, keys, question, understood
from holdfast.cli.connection import Api, Refused
from holdfast.cli.following import Connected, Following, Interrupted, News, Told
from holdfast.cli.output import one_line, program
from holdfast.cli.screen import Plain, Screen, Terminal
from holdfast.domain.errors import InvalidInput, Unavailable

#: How often the countdown is looked at while a person is asked, in seconds.
_LOOK_S = 0.2

#: After Ctrl-C, as shells have it.
_INTERRUPTED = 130

_GONE = 410

_SETTLED = ("confirmation.decided", "confirmation.expired", "confirmation.withdrawn")


def chat(
    agent: Annotated[str | None, typer.Argument(help="The agent's name, such as support.")] = None,
    text: Annotated[str | None, typer.Argument(help="One message; without it, a conversation.")] = None,
    conversation: Annotated[str | None, typer.Option(help="Go on with this conversation.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Come back to a run that was left, and to its conversation.")
    ] = None,
) -> None:
    """Talk to an agent."""
    if (agent is None) == (resume is None) or (resume is not None and conversation is not None):
        raise InvalidInput("agent", "Name an agent; or, alone, the run to come back to: --resume RUN.")
    api = Api()
    found = api.get(f"/v1/runs/{resume}") if resume else {"agent": agent, "conversation_id": conversation}
    talk = _Talk(api, str(found["agent"]), found["conversation_id"])
    try:
        talk.hold(text, resume)
    except (KeyboardInterrupt, EOFError):
        talk.leave()
        raise typer.Exit(_INTERRUPTED) from None
    except Unavailable:
        talk.leave()
        raise


class _Talk:
    """A conversation with an agent. `run_id`: the run that goes on, if one does."""

    def __init__(self, api: Api, agent: str, conversation_id: str | None) -> None:
        self._api = api
        self._agent = agent
        self._conversation_id = conversation_id
        self._run_id: str | None = None
        self._is_attended = os.name == "posix" and sys.stdin.isatty() and sys.stdout.isatty()
        self._screen: Screen = Terminal() if sys.stdout.isatty() else Plain()

    def hold(self, text: str | None, run_id: str | None) -> None:
        """Send one message, or come back to a run, or both in turn for as long as somebody types."""
        if run_id is not None:
            self._follow(run_id)
        if text is not None:
            self._say(text)
            return
        if run_id is not None and not self._is_attended:
            return
        typer.echo(f"You talk to {self._agent}. Leave with Ctrl-D.", err=True)
        while (line := _read_line()) is not None:
            if line.strip():
                self._say_in_turn(line)

    def leave(self) -> None:
        """Say how to come back."""
        self._screen.end()
        if self._run_id is not None:
            back = f"--resume {self._run_id}"
        elif self._conversation_id is not None:
            back = f"{self._agent} --conversation {self._conversation_id}"
        else:
            return
        goes_on = "" if self._run_id is None else "The run goes on. "
        typer.echo(f"\n{goes_on}Come back with: {program()} chat {back}", err=True)

    def _say_in_turn(self, line: str) -> None:
        """Among other messages: one that is refused, or does not arrive, does not end the conversation."""
        try:
            self._say(line)
        except (Refused, Unavailable) as error:
            if self._run_id is not None:
                raise
            self._screen.say(str(error))

    def _say(self, text: str) -> None:
        body = {"agent": self._agent, "text": text, "conversation_id": self._conversation_id}
        accepted = self._api.post_once(
            "/v1/messages", {name: value for name, value in body.items() if value is not None}
        )
        self._conversation_id = accepted["conversation_id"]
        self._follow(accepted["run_id"])

    def _follow(self, run_id: str) -> None:
        """Show a run until it ends; one that was merged, as the run that answers its message."""
        self._run_id = run_id
        try:
            merged_into = _Attendance(self._api, run_id, self._screen, is_attended=self._is_attended).attend()
        except Refused as refused:
            if refused.status != _GONE:
                raise
            merged_into = self._show_outcome(run_id)
        self._run_id = None
        if merged_into is not None:
            self._follow(merged_into)

    def _show_outcome(self, run_id: str) -> str | None:
        """Show what came of a run that ended so long ago that its events are not kept; answers as `attend` does."""
        run = self._api.get(f"/v1/runs/{run_id}")
        merged_into: str | None = run["merged_into"]
        if merged_into is None:
            self._screen.show(Told(0, "message.completed", {"text": run["reply"] or ""}))
            self._screen.show(Told(0, f"run.{run['status']}", run))
        return merged_into


class _Attendance:
    """One run, read along at the terminal."""

    def __init__(self, api: Api, run_id: str, screen: Screen, *, is_attended: bool) -> None:
        self._api = api
        self._screen = screen
        self._is_attended = is_attended
        self._following = Following(api, run_id)
        self._backlog: deque[News] = deque()
        self._asks: list[str] = []

    def attend(self) -> str | None:
        """Show what happens and ask what is asked, up to the end; answers with the run to read on in, if there is one.

        It ends early where nobody is there to be asked: the run waits without us.
        """
        self._screen.begin("is sent")
        try:
            while True:
                news = self._next()
                self._note(news)
                if isinstance(news, Told):
                    self._screen.show(news)
                    if news.is_last:
                        return str(news.data["merged_into"]) if news.type == "run.merged" else None
                while self._asks and not self._backlog:
                    if not self._ask(self._asks.pop(0)):
                        return None
        finally:
            self._screen.end()

    def _next(self) -> News:
        if self._backlog:
            return self._backlog.popleft()
        news = None
        while news is None:
            # Not for ever at once: a signal is to be noticed.
            news = self._following.next(timeout_s=1.0)
        return news

    def _note(self, news: News) -> None:
        match news:
            case Interrupted():
                self._screen.note("the connection is lost; trying again")
            case Connected():
                self._screen.note(None)
            case Told(type="confirmation.requested", data=data):
                self._asks.append(data["confirmation_id"])
            case Told(type=kind, data=data) if kind in _SETTLED:
                self._screen.note(None)
                self._asks = [each for each in self._asks if each != data["confirmation_id"]]

    def _ask(self, confirmation_id: str) -> bool:
        """Ask for a decision, unless there is one. False: nobody is here to ask."""
        try:
            confirmation = self._api.get(f"/v1/confirmations/{confirmation_id}")
        except Refused:
            # It is not for us to see: others are asked.
            return self._is_attended
        if confirmation["status"] != "pending":
            return True
        self._screen.end()
        if not self._is_attended:
            typer.echo(f"{_call(confirmation)} waits for a person until {confirmation['deadline'][:19]} UTC.")
            typer.echo(f"{program()} {_mend(confirmation)}")
            return False
        typer.echo(question(confirmation))
        self._prompt(confirmation)
        self._screen.begin("thinks")
        return True

    def _prompt(self, confirmation: dict[str, Any]) -> None:
        """Take an answer, until there is one from here or from elsewhere."""
        prompt = Prompt(confirmation)
        prompt.show()
        while not self._is_settled(confirmation["id"], prompt):
            line = prompt.line(_LOOK_S)
            if line is None:
                continue
            answer = understood(line, confirmation)
            if isinstance(answer, Later):
                self._screen.note(f"waits until {confirmation['deadline'][:19]} UTC: {_call(confirmation)}")
                return
            if isinstance(answer, Answer) and self._send(answer):
                return
            if isinstance(answer, Unclear):
                typer.echo(f"{answer.why}\n{keys(confirmation)}")
            prompt.show()
        prompt.take_away()

    def _is_settled(self, confirmation_id: str, prompt: Prompt) -> bool:
        """Whether the run has gone on without an answer from here; what it tells meanwhile is shown afterwards."""
        news = self._following.next(timeout_s=0)
        if news is not None:
            self._backlog.append(news)
        if not isinstance(news, Told):
            return False
        is_about_this = news.data.get("confirmation_id") == confirmation_id
        if is_about_this and "deadline" in news.data:
            prompt.move(news.data["deadline"])
        return news.is_last or (is_about_this and news.type in _SETTLED)

    def _send(self, answer: Answer) -> bool:
        """False: it was not taken, and another one may be."""
        try:
            self._api.post(answer.path, answer.body)
        except (Refused, Unavailable) as refused:
            typer.echo(str(refused), err=True)
            return False
        return True


def _read_line() -> str | None:
    with contextlib.suppress(ImportError):
        # Lets whoever types edit the line, and find the ones before.
        import readline  # noqa: F401
    try:
        return input("you> " if sys.stdin.isatty() else "")
    except EOFError:
        return None


def _mend(confirmation: dict[str, Any]) -> str:
    if confirmation["kind"] == "outcome":
        return f"runs resolve {confirmation['tool_call_id']} committed|failed|run_again --evidence …"
    return f"confirmations approve {confirmation['id']}"


def _call(confirmation: dict[str, Any]) -> str:
    return f"{confirmation['tool']}({one_line(confirmation['arguments'])})"
