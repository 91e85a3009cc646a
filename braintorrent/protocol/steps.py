"""Where the work lane stands, what a peer says of itself there, and what it remembers from before a start."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from braintorrent.protocol.entry import Entry
from braintorrent.protocol.messages import Announcement


class Step(StrEnum):
    """Where the work lane stands."""

    SEEKING = "seeking"
    READY = "ready"
    MERGING = "merging"
    TRAINING = "training"
    PUBLISHING = "publishing"
    LINGERING = "lingering"
    CLOSING = "closing"
    LEAVING = "leaving"
    LEFT = "left"


AT_WORK = frozenset({Step.MERGING, Step.TRAINING, Step.CLOSING})  # most of the time: only its end leads on from there
PHASE = {Step.SEEKING: "seeking", Step.LINGERING: "final", Step.CLOSING: "final",
         Step.LEAVING: "leaving", Step.LEFT: "leaving"}  # fmt: skip


@dataclass(slots=True)
class Restored:
    """What a peer remembers from before this start. `incarnation` is already durable."""

    incarnation: int
    newest: Announcement | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    resume: bool = False  # a checkpoint inside the next version was loaded
    best: float | None = None
    since_best: int = 0
    elapsed: float = 0.0  # seconds of earlier lives, for a stop rule in minutes
