"""Logs: for people on the terminal, as JSON lines with rotation in `state/log/`. Never a patient identifier."""

from __future__ import annotations

import json
import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

KEEP_BYTES, KEEP_FILES = 5 << 20, 5


class JsonLines(logging.Formatter):
    """One object per line: time, level, room, text."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "room": record.name.removeprefix("braintorrent."),
            "text": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def start_logging(folder: Path, verbose: bool) -> logging.Handler:
    """Log to the terminal (more with `verbose`) and to `folder`/node.jsonl. Returns the file's handler."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    root = logging.getLogger("braintorrent")
    root.setLevel(logging.DEBUG)
    root.propagate = False
    file = RotatingFileHandler(folder / "node.jsonl", maxBytes=KEEP_BYTES, backupCount=KEEP_FILES, encoding="utf-8")
    file.setFormatter(JsonLines())
    file.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.handlers = [file, _terminal(verbose)]
    discovery = logging.getLogger("zeroconf")  # a network that goes away is no news for the terminal
    discovery.handlers, discovery.propagate = [file], False
    logging.raiseExceptions = False  # a full disk must not fill the terminal with tracebacks of the logger
    return file


def _terminal(verbose: bool) -> logging.Handler:
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=False, markup=False, log_time_format="%H:%M:%S")
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    handler.setLevel(logging.DEBUG if verbose else logging.INFO)
    return handler
