"""A version: which life of a peer, and which model of that life."""

from __future__ import annotations

from typing import NamedTuple

MAX_FIELD = 2**53 - 1  # exact in JSON readers that only know doubles


class Version(NamedTuple):
    """(incarnation, counter) of one author, ordered lexicographically.

    incarnation: taken anew at each start, larger than any before, so a restored backup or a lost
        disk never makes one number mean two contents.
    counter: versions trained by this peer so far; 0 means nothing trained, never announced.
    """

    incarnation: int
    counter: int

    @classmethod
    def parse(cls, text: str) -> Version:
        """Undo `str`. ValueError."""
        incarnation, counter = text.split(".")
        return cls(int(incarnation), int(counter))

    def __str__(self) -> str:
        return f"{self.incarnation}.{self.counter}"


NOTHING = Version(0, 0)
"""Below every announced version."""


def next_incarnation(durable: int, unix_ms: int, heard: int) -> int:
    """The incarnation of a start: above the last on this disk, the clock, and what others heard.

    durable: last incarnation stored here (0 if none); unix_ms: wall clock in milliseconds;
    heard: newest incarnation of ours that another peer announced (0 if none).
    """
    return max(durable + 1, unix_ms, heard + 1)
