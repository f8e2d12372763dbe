"""The API as the command line reaches it: over HTTP, with a key."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from holdfast.domain.errors import ConfigurationError, HoldfastError, InvalidInput, Unavailable

#: Where `holdfast dev` leaves its address and key.
_DEV_FILE = Path(".holdfast/dev.json")

#: Longer than the API waits for a reply.
_TIMEOUT_S = 70

#: Longer than the API lets a stream be silent: it sends a comment every 15 seconds.
_SILENCE_S = 60

#: How long to rest before saying again what nobody may have heard, in seconds.
_AGAIN_S = (0.5, 1, 2, 4, 8)


class Refused(HoldfastError):
    """The API answered with a problem; the text is its detail. `will_pass`: a part of it is away for now."""

    def __init__(self, status: int, detail: str, *, will_pass: bool = False) -> None:
        super().__init__(detail)
        self.status = status
        self.will_pass = will_pass


class Api:
    """A client of the HTTP API. Every call raises `Refused` for a problem, `Unavailable` when nothing answers."""

    def __init__(self) -> None:
        import httpx

        url, key = _address()
        self._url = url
        self._client = httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=_TIMEOUT_S)

    def get(self, path: str, **parameters: Any) -> Any:
        """GET a path; parameters that are None are left out."""
        return self._call("GET", path, params={name: value for name, value in parameters.items() if value is not None})

    def post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None, **parameters: Any) -> Any:
        """POST a JSON body."""
        return self._call("POST", path, json=body, headers=headers, params=parameters)

    def post_once(self, path: str, body: dict[str, Any]) -> Any:
        """POST a JSON body under an idempotency key, and again under the same when the answer is lost on its way."""
        import httpx

        headers = {"idempotency-key": str(uuid4())}
        was_sent = False
        for again_s in _AGAIN_S:
            try:
                return self._answer("POST", path, json=body, headers=headers)
            except httpx.ConnectError:
                # What was sent to an API that restarts now may be accepted: whoever typed it again would say it twice.
                if not was_sent:
                    break
            except httpx.TransportError:
                was_sent = True
            except Refused as refused:
                # It may be stored: the database can go away as it commits.
                if not refused.will_pass:
                    raise
                was_sent = True
            time.sleep(again_s)
        return self.post(path, body, headers)

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """PUT a JSON body."""
        return self._call("PUT", path, json=body)

    def delete(self, path: str, **parameters: Any) -> Any:
        """DELETE a path."""
        return self._call("DELETE", path, params=parameters)

    def events(
        self, path: str, *, on_open: Callable[[], None] = lambda: None, **parameters: Any
    ) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """The server-sent events of a path as they come: number, type and data. `on_open`: called when they begin."""
        import httpx

        try:
            with self._client.stream("GET", _escaped(path), params=parameters, timeout=_SILENCE_S) as response:
                if response.is_error:
                    raise _refused(response.read().decode(), response.status_code)
                on_open()
                yield from _parsed(response.iter_lines())
        except httpx.TransportError as error:
            raise Unavailable(f"The API at {self._url} has gone away ({error}).") from None

    def _call(self, method: str, path: str, **request: Any) -> Any:
        import httpx

        try:
            return self._answer(method, path, **request)
        except httpx.TransportError as error:
            raise Unavailable(
                f"The API does not answer at {self._url} ({error}). Is it running? `holdfast dev`"
            ) from None

    def _answer(self, method: str, path: str, **request: Any) -> Any:
        response = self._client.request(method, _escaped(path), **request)
        if response.is_error:
            raise _refused(response.text, response.status_code)
        try:
            return response.json() if response.content else None
        except ValueError:
            raise Unavailable(f"What answers at {self._url} is not the API: not JSON, at {path}.") from None


def _escaped(path: str) -> str:
    """A path whose ids were typed by somebody: none of them leads to another one."""
    from urllib.parse import quote

    if ".." in path.split("/"):
        raise InvalidInput("id", f"{path!r} is no path of the API.")
    return quote(path, safe="/:")


def _parsed(lines: Iterator[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line and fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}


def _refused(text: str, status: int) -> Refused:
    try:
        problem = json.loads(text)
        return Refused(status, str(problem["detail"]), will_pass=problem.get("title") == "Unavailable")
    except (ValueError, KeyError, TypeError, AttributeError):
        return Refused(status, f"the API answered with status {status}")


def _address() -> tuple[str, str]:
    dev = dev_file()
    url = os.environ.get("HOLDFAST_URL") or dev.get("url")
    key = os.environ.get("HOLDFAST_API_KEY") or dev.get("key")
    if not url or not key:
        raise ConfigurationError(
            "HOLDFAST_URL and HOLDFAST_API_KEY: are not set, and no `holdfast dev` has run in this folder; "
            "set them, or run `holdfast dev`"
        )
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"HOLDFAST_URL: {url!r} is no address; write it like http://127.0.0.1:8000")
    # A header can't hold it otherwise, and whoever complains of that quotes it.
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigurationError("HOLDFAST_API_KEY: is not a key; set it to one that `holdfast keys create` printed")
    return url, key


def dev_file() -> dict[str, Any]:
    """What `holdfast dev` has left for the command line; empty: none has run in this folder."""
    path = Path(os.environ.get("HOLDFAST_DATA", _DEV_FILE.parent)) / _DEV_FILE.name
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found
