"""Logs without secrets: ours, and those of every library, whatever their handlers and formatters.

A record is redacted as it is made: its text when it is asked for, its traceback at once. The handler of the process
redacts the whole line again. What ends a process or a thread unforeseen is not logged but written; so that is, too.
"""

import logging
import os
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

from holdfast.secrecy.redaction import learn_named, redacted

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class RedactedRecord(logging.LogRecord):
    """A record without secrets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info and self.exc_info[1] is not None:
            # Formatters take the text that they find. It is made here, so that each finds this one.
            self.exc_text = _traceback(*self.exc_info)
        if self.stack_info:
            self.stack_info = redacted(self.stack_info)

    def getMessage(self) -> str:
        """The message with its arguments; also where they don't fit, which logging would tell with their values."""
        try:
            return redacted(super().getMessage())
        except Exception:
            return redacted(f"{self.msg} {self.args!r}")


class _RedactingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def set_up(level: str) -> None:
    """Log to standard error, from `level` on, without secrets."""
    guard()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_RedactingFormatter(_FORMAT))
    logging.basicConfig(level=level, handlers=[handler])


def guard() -> None:
    """Redact whatever this process logs, and whatever it or a thread of it dies of."""
    learn_named(os.environ.items())
    logging.setLogRecordFactory(RedactedRecord)
    # A library's warning may quote what it was given; a record that could not be written would be, as it is.
    logging.captureWarnings(True)
    logging.raiseExceptions = False
    sys.excepthook = _write_exception
    threading.excepthook = _write_thread_exception
    sys.unraisablehook = _write_unraisable


def _traceback(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> str:
    return redacted("".join(traceback.format_exception(kind, error, trace))).rstrip("\n")


def _write_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(f"{_traceback(kind, error, trace)}\n")


def _write_thread_exception(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else "a thread"
    sys.stderr.write(f"in {name}: {_traceback(args.exc_type, args.exc_value, args.exc_traceback)}\n")


def _write_unraisable(args: "sys.UnraisableHookArgs") -> None:
    sys.stderr.write(f"{_traceback(args.exc_type, args.exc_value, args.exc_traceback)}\n")
