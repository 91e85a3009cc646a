"""Ctrl-C while a command is loading."""

from __future__ import annotations

import os
import signal
from types import FrameType

EVERY = 0.01  # seconds between two looks whether an import has ended
SAID = b"stopping once this is loaded; once more to end at once\n"


def raise_between_imports() -> None:
    """From now on SIGINT raises KeyboardInterrupt where it can be caught; inside of an import it waits for its end.

    There it may meet a callback that Python calls and whose errors it only prints, so that Ctrl-C would do nothing at
    all, or C++ that does not expect it, which aborts the process. Where SIGINT is ignored (nohup) it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGALRM, _look_again)
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_sign: int, frame: FrameType | None) -> None:
    if not _importing(frame):
        raise KeyboardInterrupt
    if signal.getitimer(signal.ITIMER_REAL)[0]:
        os._exit(130)
    os.write(2, SAID)
    signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)


def _look_again(_sign: int, frame: FrameType | None) -> None:
    if not _importing(frame):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.raise_signal(signal.SIGINT)  # whoever handles it by now


def _importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None
