"""The model pool over HTTP: `POST /complete`, `/complete/stream`, `/generate`, `/embed`, each by alias."""

import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, Self

from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from api import problems
from api.auth import needs
from api.open_streams import OpenStream, Stream
from api.routing import resource
from api.shapes import AttemptShape, UsageShape
from api.wiring import models
from holdfast.domain.errors import HoldfastError
from holdfast.domain.ids import new_tool_call_id
from holdfast.domain.model_calls import Completion, Embeddings, StreamEvent, TextDelta
from holdfast.domain.permissions import Caller, Permission
from holdfast.services.models import Ask, Generated

log = logging.getLogger(__name__)

router = resource("", "models")

_UNANSWERED = problems.documented(404, 502)

#: How many texts one request may have made into vectors: OpenAI's own limit.
MAX_TEXTS = 2048

Alias = Annotated[str, Field(min_length=1, max_length=255, description="a model_name of models.yaml, such as `fast`")]
Purpose = Annotated[
    str | None, Field(pattern=r"^[\w .:/#@-]{1,100}$", description="what the call is for; kept with its record")
]
Text = Annotated[str, Field(min_length=1)]


class ChatMessageBody(BaseModel):
    """A message in OpenAI's chat form; what else that form has may stand beside these."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None


class AskBody(BaseModel):
    """What every kind of completion takes."""

    model_config = ConfigDict(extra="forbid")

    alias: Alias
    messages: list[ChatMessageBody] = Field(min_length=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000, description="the longest answer, in tokens")
    purpose: Purpose = None

    def ask(self) -> Ask:
        """What the pool is asked."""
        options = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return Ask(
            alias=self.alias,
            messages=[message.model_dump(exclude_unset=True) for message in self.messages],
            purpose=self.purpose,
            options={name: value for name, value in options.items() if value is not None},
        )


class CompletionBody(AskBody):
    """A completion. `tools` in OpenAI's function form; with `tool_choice` none they are shown but may not be called."""

    tools: list[dict[str, Any]] = Field(default_factory=list, max_length=128)
    tool_choice: Literal["auto", "none"] = "auto"

    def ask(self) -> Ask:
        asked = super().ask()
        return Ask(**{**vars(asked), "tools": self.tools, "use_tools": self.tool_choice == "auto"})


class GenerationBody(AskBody):
    """A completion that must be JSON. `schema`: JSON Schema 2020-12, without references to anything outside it."""

    schema_: dict[str, Any] = Field(alias="schema")
    prompt_version: str | None = Field(
        default=None, pattern=r"^[\w .:/#@-]{1,100}$", description="by default a digest of system messages and schema"
    )


class EmbeddingBody(BaseModel):
    """One text or several."""

    model_config = ConfigDict(extra="forbid")

    alias: Alias = "embedder"
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    purpose: Purpose = None


class FunctionShape(BaseModel):
    """What a tool call calls. `arguments` is JSON text as the model wrote it: it may be broken."""

    name: str
    arguments: str


class RequestedCallShape(BaseModel):
    """A tool call in OpenAI's form. Its id is ours: providers give none, or the same one twice."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionShape


class AnsweredShape(BaseModel):
    """What every answer tells: who was asked, who answered, what it took."""

    alias: str
    model: str
    deployment: str
    usage: UsageShape
    attempts: list[AttemptShape]
    latency_ms: int

    @staticmethod
    def told(answer: Completion | Embeddings | Generated) -> dict[str, Any]:
        """The fields above, of any answer."""
        names = ("alias", "model", "deployment", "latency_ms")
        attempts = [AttemptShape(**vars(attempt)) for attempt in answer.attempts]
        return {
            **{name: getattr(answer, name) for name in names},
            "usage": UsageShape.of(answer.usage),
            "attempts": attempts,
        }


class CompletionShape(AnsweredShape):
    """An answer."""

    object: Literal["completion"] = "completion"
    text: str
    tool_calls: list[RequestedCallShape]
    finish_reason: str
    first_token_ms: int | None

    @classmethod
    def of(cls, completion: Completion) -> Self:
        calls = [
            RequestedCallShape(id=new_tool_call_id(), function=FunctionShape(name=call.tool, arguments=call.arguments))
            for call in completion.tool_calls
        ]
        return cls(
            **cls.told(completion),
            text=completion.text,
            tool_calls=calls,
            finish_reason=completion.finish_reason,
            first_token_ms=completion.first_token_ms,
        )


class GenerationShape(AnsweredShape):
    """A value that fits the schema. `repairs`: how often an answer was sent back."""

    object: Literal["generation"] = "generation"
    value: Any
    prompt_version: str
    repairs: int

    @classmethod
    def of(cls, generated: Generated) -> Self:
        return cls(
            **cls.told(generated),
            value=generated.value,
            prompt_version=generated.prompt_version,
            repairs=generated.repairs,
        )


class EmbeddingsShape(AnsweredShape):
    """A vector for each text, in their order."""

    object: Literal["embeddings"] = "embeddings"
    data: list[list[float]]

    @classmethod
    def of(cls, embeddings: Embeddings) -> Self:
        return cls(**cls.told(embeddings), data=[list(vector) for vector in embeddings.vectors])


@router.post("/complete", responses=_UNANSWERED)
async def complete(
    request: Request, caller: Annotated[Caller, needs(Permission.MODELS_USE)], body: CompletionBody
) -> CompletionShape:
    """Ask a model; the answer comes whole."""
    return CompletionShape.of(await models(request).complete(caller.tenant_id, body.ask()))


@router.post(
    "/complete/stream",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/x-ndjson": {}}, "description": "One JSON object a line; see below."},
        **_UNANSWERED,
    },
)
async def stream(
    request: Request, caller: Annotated[Caller, needs(Permission.MODELS_USE)], reading: Stream, body: CompletionBody
) -> StreamingResponse:
    """Ask a model; the answer comes as it is written, one JSON object a line.

    `{"type": "chunk", "attempt": 1, "text": "…"}` is a piece of the answer. `{"type": "reset", "attempt": 1}` takes
    back all pieces of that attempt: it broke off, and another model begins anew. The last line is
    `{"type": "done", …}` with the whole answer as `/complete` gives it, or `{"type": "error", …}` with a problem.
    What fails before the first piece is answered with a status, as by `/complete`. Closing the connection ends the
    call.
    """
    reading.open()
    events = models(request).stream(caller.tenant_id, body.ask())
    # Nothing is sent before something was said: until then, a failure can still be a status.
    first = await anext(events)
    while not isinstance(first, TextDelta | Completion):
        first = await anext(events)
    return StreamingResponse(_lines(request, reading, first, events), media_type="application/x-ndjson")


@router.post("/generate", responses=_UNANSWERED)
async def generate(
    request: Request, caller: Annotated[Caller, needs(Permission.MODELS_USE)], body: GenerationBody
) -> GenerationShape:
    """Ask a model for JSON that fits a schema. What does not fit is sent back to it, twice at most; then 502."""
    generated = await models(request).generate(caller.tenant_id, body.ask(), body.schema_, body.prompt_version)
    return GenerationShape.of(generated)


@router.post("/embed", responses=_UNANSWERED)
async def embed(
    request: Request, caller: Annotated[Caller, needs(Permission.MODELS_USE)], body: EmbeddingBody
) -> EmbeddingsShape:
    """Make texts into vectors."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    return EmbeddingsShape.of(await models(request).embed(caller.tenant_id, body.alias, texts, body.purpose))


async def _lines(
    request: Request,
    reading: OpenStream,
    first: StreamEvent | Completion,
    rest: AsyncIterator[StreamEvent | Completion],
) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(rest):  # type: ignore[type-var]  # an async generator, though typed as an iterator
        yield _line(first)
        try:
            async for event in rest:
                await reading.check()
                yield _line(event)
        except HoldfastError as error:
            yield _as_line({**problems.as_problem(request, error), "type": "error"})
        except Exception:
            # The status is sent, so no handler can say it any more.
            log.exception("a stream ended by an unexpected error")
            yield _as_line({**problems.unexpected(request), "type": "error"})


def _line(event: StreamEvent | Completion) -> bytes:
    if isinstance(event, Completion):
        return _as_line({"type": "done", **CompletionShape.of(event).model_dump(mode="json")})
    if isinstance(event, TextDelta):
        return _as_line({"type": "chunk", "attempt": event.attempt, "text": event.text})
    return _as_line({"type": "reset", "attempt": event.attempt})


def _as_line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
