"""MONAI's one switch for the whole process: whether tensors carry an affine and a history (MetaTensor)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from monai.data import get_track_meta, set_track_meta


@contextmanager
def tracking(on: bool) -> Iterator[None]:
    """Metadata on tensors or not, inside the block; then as before. Without it patches are cut several times faster."""
    before: bool = get_track_meta()
    set_track_meta(on)
    try:
        yield
    finally:
        set_track_meta(before)
