"""What MONAI, ignite and a bundle would print, in this process's own log at debug instead."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

log = logging.getLogger("braintorrent.tasks.bundle")
SOURCES = ("monai", "ignite", "py.warnings")


class _Forward(logging.Handler):
    """Every record, whatever its level there, at debug here: a traceback may name scans."""

    def emit(self, record: logging.LogRecord) -> None:
        log.debug("%s: %s", record.name, record.getMessage(), exc_info=record.exc_info)


@contextmanager
def quietly() -> Iterator[None]:
    """Inside: printed lines go to the log. From here on: so do warnings, and what MONAI and ignite log."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("default")
            _divert()
            yield
    finally:
        _divert()  # loggers made meanwhile
        logging.captureWarnings(True)  # as "py.warnings"
        for line in (*printed.getvalue().splitlines(), *(str(warning.message) for warning in warned)):
            log.debug("%s", line)


def _divert() -> None:
    """MONAI gives each of its loggers a handler of its own on standard output."""
    forward = _Forward()
    for name in SOURCES:
        top = logging.getLogger(name)
        top.handlers, top.propagate = [forward], False
        top.setLevel(logging.INFO)  # below it, handlers that log metrics warn that nobody would see them
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(tuple(f"{source}." for source in SOURCES)):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [], True
