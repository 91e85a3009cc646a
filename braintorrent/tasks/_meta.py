"""MONAI's one switch for the whole process: whether tensors carry an affine and a history (MetaTensor)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from monai.data import get_track_meta, set_track_meta


class _Switch:
    """Labs in one process train in threads of their own: who wants it the same way is inside together, others wait."""

    def __init__(self) -> None:
        self._changed, self._inside, self._before = Condition(), 0, True

    def enter(self, on: bool) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._inside or get_track_meta() == on)
            if not self._inside:
                self._before = get_track_meta()
                set_track_meta(on)
            self._inside += 1

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            if not self._inside:
                set_track_meta(self._before)
                self._changed.notify_all()


_SWITCH = _Switch()


@contextmanager
def tracking(on: bool) -> Iterator[None]:
    """Metadata on tensors or not, inside the block; then as before. Without it patches are cut several times faster.

    Not to be nested the other way: that would wait for itself.
    """
    _SWITCH.enter(on)
    try:
        yield
    finally:
        _SWITCH.leave()
