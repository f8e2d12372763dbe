"""The start of a process: settings, logging, and errors that are one line and a non-zero exit."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.config.loading import Kind, load_settings
from holdfast.domain.errors import ConfigurationError, HoldfastError
from holdfast.secrecy import logs

log = logging.getLogger(__name__)

#: Exit codes: a mistake in the configuration (as argument parsers exit), anything else that stops the start.
EXIT_CONFIGURATION = 2
EXIT_FAILURE = 1


@contextmanager
def started_with(kind: type[Kind]) -> Iterator[Kind]:
    """Load a process's settings and set up its logging; what Holdfast raises inside the block ends the process."""
    try:
        settings = load_settings(kind)
        logs.set_up(settings.log_level)
        # Their INFO lines quote every request's address; ours say what matters.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        # Its lines quote ids of sessions, and what servers say that is no MCP, which may be anything.
        logging.getLogger("mcp").setLevel(logging.CRITICAL)
        for warning in settings.warnings:
            log.warning("%s", warning)
        yield settings
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_CONFIGURATION)
    except HoldfastError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_FAILURE)
