"""`python -m benchmarks.pacing`: a provider that says what time it is, word by word, at the pace a message asks for.

A message "20 words, 100 ms apart" is answered with so many words, each the microsecond at which it was written out: who
reads along can tell how old a word is. It is a few lines on a socket, since it shares the cores with what is measured.
"""

import argparse
import asyncio
import json
import re
import time

_ASKED = re.compile(r"(\d+) words, (\d+) ms apart")

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def asking(words: int, apart_ms: int) -> str:
    """The message that asks for it."""
    return f"{words} words, {apart_ms} ms apart"


def now() -> str:
    """A word: the time, in microseconds, to be compared with another of this machine."""
    return str(time.time_ns() // 1000)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = re.search(r"content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            asked = _ASKED.findall(json.loads(body)["messages"][-1]["content"])
            words, apart_ms = (int(number) for number in asked[-1])
            await _answer(writer, words, apart_ms / 1000)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _answer(writer: asyncio.StreamWriter, words: int, apart_s: float) -> None:
    writer.write(_HEAD + _chunk({"role": "assistant", "content": ""}))
    for _ in range(words):
        # The first is not waited for: what comes before it is not the provider's.
        writer.write(_chunk({"content": f"{now()} "}))
        await writer.drain()
        await asyncio.sleep(apart_s)
    writer.write(_chunk({}, "stop") + _sent(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    await writer.drain()


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", "choices": [choice]}
    return _sent(f"data: {json.dumps(chunk)}\n\n".encode())


def _sent(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def _main(port: int) -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A provider that says what time it is.")
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(_main(parser.parse_args().port))
