"""What survives a crash of a simulated peer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from braintorrent.protocol.entry import Entry
from braintorrent.protocol.messages import Announcement
from braintorrent.simulation.learner import Blob


@dataclass(slots=True)
class Disk:
    """The last incarnation, the newest version, the table, and the bytes of models."""

    incarnation: int = 0
    newest: Announcement | None = None
    previous: Announcement | None = None  # the own version before: whoever is about to fetch it may; a node keeps more
    entries: dict[str, Entry] = field(default_factory=dict)
    blobs: dict[str, Blob] = field(default_factory=dict)  # content digest -> model
    full: bool = False

    def copy(self) -> Disk:
        """A backup of this moment. What was only offered is not on a disk."""
        entries = {author: replace(entry, offers=()) for author, entry in self.entries.items()}
        return Disk(self.incarnation, self.newest, self.previous, entries, dict(self.blobs))
